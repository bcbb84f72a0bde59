// The log: JSON lines on stdout, and the only file that knows pino. Levels carry the words of Python's logging (WARNING,
// CRITICAL), time is ISO with milliseconds. Callers give flat fields without secrets; nothing is redacted here.

import { pino } from 'pino'
import type { LogOptions } from './options.ts'
import { createSink } from './sink.ts'

export type LogLevel = LogOptions['level']

/** Fields first, message second. A field `error` may hold an Error: it is written with type, message and stack. */
export type WriteLine = (fields: object, message: string) => void

export interface Log {
  trace: WriteLine
  debug: WriteLine
  info: WriteLine
  warn: WriteLine
  error: WriteLine
  fatal: WriteLine
  /** Writes fields that hold their `message` already, so that it stands where the fields have it. */
  line(level: Exclude<LogLevel, 'silent'>, fields: { readonly message: string }): void
  /** True when lines of this level are written; ask before building fields that cost something. */
  isEnabled(level: LogLevel): boolean
  setLevel(level: LogLevel): void
  /** Lines given up since start, because nobody took them in time. */
  readonly droppedLines: number
  /** Waits until the lines so far are written, at most a second; for the end of the process. */
  flush(): void
  /** Flushes and ends the log: lines written later are dropped. */
  close(): void
}

/** Takes the lines in place of stdout, each with its line break. */
export interface LogDestination {
  write(line: string): unknown
}

/** Bytes of lines that may wait for a slow reader; further lines are dropped and counted. */
const MAX_WAITING_BYTES = 8 * 1024 ** 2

const LABELS: Readonly<Record<string, string>> = {
  trace: 'TRACE',
  debug: 'DEBUG',
  info: 'INFO',
  warn: 'WARNING',
  error: 'ERROR',
  fatal: 'CRITICAL',
}

export function createLog(options: Pick<LogOptions, 'level'>, destination?: LogDestination): Log {
  const sink = destination === undefined ? createSink(1, MAX_WAITING_BYTES) : null
  const logger = pino(
    {
      level: options.level,
      base: null,
      messageKey: 'message',
      errorKey: 'error',
      formatters: { level: (label) => ({ level: LABELS[label] ?? label }) },
      timestamp: createTimestamp(),
    },
    sink ?? { write: (line) => void destination?.write(line) },
  )
  return {
    trace: (fields, message) => logger.trace(fields, message),
    debug: (fields, message) => logger.debug(fields, message),
    info: (fields, message) => logger.info(fields, message),
    warn: (fields, message) => logger.warn(fields, message),
    error: (fields, message) => logger.error(fields, message),
    fatal: (fields, message) => logger.fatal(fields, message),
    line: (level, fields) => logger[level](fields),
    isEnabled: (level) => logger.isLevelEnabled(level),
    setLevel(level) {
      logger.level = level
    },
    get droppedLines() {
      return sink?.droppedLines ?? 0
    },
    flush: () => sink?.flushSync(),
    close: () => sink?.close(),
  }
}

/** The member that pino puts into each line; the text is made once per millisecond. */
function createTimestamp(): () => string {
  let epochMs = Number.NaN
  let member = ''
  return () => {
    const nowMs = Date.now()
    if (nowMs !== epochMs) {
      epochMs = nowMs
      member = `,"timestamp":"${new Date(nowMs).toISOString()}"`
    }
    return member
  }
}
