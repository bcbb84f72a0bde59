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

const LABELS = {
  trace: 'TRACE',
  debug: 'DEBUG',
  info: 'INFO',
  warn: 'WARNING',
  error: 'ERROR',
  fatal: 'CRITICAL',
} as const satisfies Record<Exclude<LogLevel, 'silent'>, string>

export function createLog(options: Pick<LogOptions, 'level'>, destination?: LogDestination): Log {
  const sink = destination === undefined ? createSink(1, MAX_WAITING_BYTES) : null
  const timestamp = createTimestamp()
  let label = ''
  const logger = pino(
    {
      level: options.level,
      base: null,
      messageKey: 'message',
      errorKey: 'error',
      // pino has the level first and then the time. A line begins with its time here, so the level comes with that.
      formatters: { level: () => ({}) },
      timestamp: () => `${timestamp()},"level":"${label}"`,
    },
    sink ?? { write: (line) => void destination?.write(line) },
  )
  const write =
    (level: keyof typeof LABELS): WriteLine =>
    (fields, message) => {
      label = LABELS[level]
      logger[level](fields, message)
    }
  return {
    trace: write('trace'),
    debug: write('debug'),
    info: write('info'),
    warn: write('warn'),
    error: write('error'),
    fatal: write('fatal'),
    line(level, fields) {
      label = LABELS[level]
      logger[level](fields)
    },
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

/** The first member of each line; the text is made once per millisecond. */
function createTimestamp(): () => string {
  let epochMs = Number.NaN
  let member = ''
  return () => {
    const nowMs = Date.now()
    if (nowMs !== epochMs) {
      epochMs = nowMs
      member = `"timestamp":"${new Date(nowMs).toISOString()}"`
    }
    return member
  }
}
