// The part of @std/log that penne uses, for hosts and caches without JSR.

const LEVELS = { DEBUG: 10, INFO: 20, WARN: 30, ERROR: 40 } as const;

/** Name of a severity. */
export type LevelName = keyof typeof LEVELS;

/** A message with its severity and time. */
export interface LogRecord {
  /** The message. */
  readonly msg: string;
  /** What was logged with the message. */
  readonly args: readonly unknown[];
  /** Severity, as a number. */
  readonly level: number;
  /** Severity, by name. */
  readonly levelName: string;
  /** Time of the message. */
  readonly datetime: Date;
}

/** Formats records and writes them somewhere. */
export abstract class BaseHandler {
  #level: number;
  #formatter: (record: LogRecord) => string;

  /**
   * @param levelName Least severity to write.
   * @param options How to format a record.
   */
  constructor(levelName: LevelName, options: { formatter: (record: LogRecord) => string }) {
    this.#level = LEVELS[levelName];
    this.#formatter = options.formatter;
  }

  /** Writes a record if it is severe enough. */
  handle(record: LogRecord): void {
    if (record.level >= this.#level) this.log(this.#formatter(record));
  }

  /** Writes a formatted record, which has no newline at its end. */
  abstract log(msg: string): void;
}

/** Passes messages to handlers. */
export class Logger {
  #level: number;
  #handlers: readonly BaseHandler[];

  /**
   * @param _loggerName Name of the logger.
   * @param levelName Least severity to pass on.
   * @param options The handlers.
   */
  constructor(_loggerName: string, levelName: LevelName, options: { handlers: BaseHandler[] }) {
    this.#level = LEVELS[levelName];
    this.#handlers = options.handlers;
  }

  #log(levelName: LevelName, msg: string, args: readonly unknown[]): void {
    const level = LEVELS[levelName];
    if (level < this.#level) return;
    const record = { msg, args, level, levelName, datetime: new Date() };
    for (const handler of this.#handlers) handler.handle(record);
  }

  /** Logs details for finding faults in penne. */
  debug(msg: string, ...args: unknown[]): void {
    this.#log("DEBUG", msg, args);
  }

  /** Logs normal progress. */
  info(msg: string, ...args: unknown[]): void {
    this.#log("INFO", msg, args);
  }

  /** Logs a problem that penne can work around. */
  warn(msg: string, ...args: unknown[]): void {
    this.#log("WARN", msg, args);
  }

  /** Logs a failure. */
  error(msg: string, ...args: unknown[]): void {
    this.#log("ERROR", msg, args);
  }
}
