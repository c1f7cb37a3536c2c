// The part of @std/log that penne uses, for hosts and caches without JSR (upstream has removed the module).

/** Severity of a record, by name. */
export const LogLevels = {
  NOTSET: 0,
  DEBUG: 10,
  INFO: 20,
  WARN: 30,
  ERROR: 40,
  CRITICAL: 50,
} as const;

/** Name of a severity. */
export type LevelName = keyof typeof LogLevels;
/** Value of a severity. */
export type LogLevel = (typeof LogLevels)[LevelName];

/** One thing to log. */
export class LogRecord {
  /** The text. */
  readonly msg: string;
  /** Severity. */
  readonly level: number;
  /** Name of the severity. */
  readonly levelName: string;
  /** Name of the logger. */
  readonly loggerName: string;
  /** When it was made. */
  readonly datetime: Date;

  /** @param options What it holds. */
  constructor(options: { msg: string; args: unknown[]; level: LogLevel; loggerName: string }) {
    this.msg = options.msg;
    this.level = options.level;
    this.levelName = Object.entries(LogLevels).find(([, value]) => value === options.level)?.[0] ?? "NOTSET";
    this.loggerName = options.loggerName;
    this.datetime = new Date();
  }
}

/** Something that writes records down. */
export abstract class BaseHandler {
  /** Name of the least severity that is written. */
  readonly levelName: LevelName;
  /** Turns a record into text. */
  readonly formatter: (record: LogRecord) => string;

  /**
   * @param levelName Name of the least severity that is written.
   * @param options How records become text.
   */
  constructor(levelName: LevelName, options: { formatter?: (record: LogRecord) => string } = {}) {
    this.levelName = levelName;
    this.formatter = options.formatter ?? ((record) => `${record.levelName} ${record.msg}`);
  }

  /**
   * Writes a record if it is severe enough.
   *
   * @param record The record.
   */
  handle(record: LogRecord): void {
    if (record.level >= LogLevels[this.levelName]) this.log(this.formatter(record));
  }

  /**
   * Writes a line.
   *
   * @param msg The line, without its end.
   */
  abstract log(msg: string): void;
}

/** Where records start. */
export class Logger {
  /** Name in the configuration. */
  readonly loggerName: string;
  /** Least severity. */
  readonly level: LogLevel;
  /** Who writes them. */
  readonly handlers: readonly BaseHandler[];

  /**
   * @param loggerName Name in the configuration.
   * @param levelName Name of the least severity.
   * @param options Who writes records.
   */
  constructor(loggerName: string, levelName: LevelName, options: { handlers?: BaseHandler[] } = {}) {
    this.loggerName = loggerName;
    this.level = LogLevels[levelName];
    this.handlers = options.handlers ?? [];
  }

  #log(level: LogLevel, msg: string, args: unknown[]): void {
    if (level < this.level) return;
    const record = new LogRecord({ msg, args, level, loggerName: this.loggerName });
    for (const handler of this.handlers) handler.handle(record);
  }

  /** Logs what helps to find a fault in penne. */
  debug(msg: string, ...args: unknown[]): void {
    this.#log(LogLevels.DEBUG, msg, args);
  }

  /** Logs what is as it should be. */
  info(msg: string, ...args: unknown[]): void {
    this.#log(LogLevels.INFO, msg, args);
  }

  /** Logs what may not be as it should be. */
  warn(msg: string, ...args: unknown[]): void {
    this.#log(LogLevels.WARN, msg, args);
  }

  /** Logs what could not be done. */
  error(msg: string, ...args: unknown[]): void {
    this.#log(LogLevels.ERROR, msg, args);
  }
}

/** Handlers and loggers by name. */
export interface LogConfig {
  /** Handlers by name. */
  readonly handlers?: Readonly<Record<string, BaseHandler>>;
  /** Loggers by name. */
  readonly loggers?: Readonly<Record<string, { level?: LevelName; handlers?: string[] }>>;
}

const loggers = new Map<string, Logger>();

/**
 * Sets handlers and loggers up, in place of those that were.
 *
 * @param config What to have from now on.
 */
export function setup(config: LogConfig): void {
  loggers.clear();
  for (const [name, { level = "INFO", handlers = [] }] of Object.entries(config.loggers ?? {})) {
    const known = handlers.flatMap((handler) => config.handlers?.[handler] ?? []);
    loggers.set(name, new Logger(name, level, { handlers: known }));
  }
}

/**
 * The logger of a name.
 *
 * @param name Its name; "default" without one.
 * @returns It; one that writes nothing if it was not set up.
 */
export function getLogger(name = "default"): Logger {
  let logger = loggers.get(name);
  if (!logger) loggers.set(name, logger = new Logger(name, "NOTSET"));
  return logger;
}
