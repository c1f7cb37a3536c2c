// The hidden option of a second process in the background.

/** Name of the option that names the second process's descriptors. */
export const LINK_OPTION = "background-link";
