// The log: JSON lines on stdout, and the only file that knows pino. Levels carry the words of Python's logging (WARNING,
// CRITICAL), time is ISO with milliseconds. Callers give flat fields without secrets; nothing is redacted here. What there
// is a line of for each request comes as text (request-line.ts) and goes past pino, into the same sink.

import { writeSync } from 'node:fs'
import { pino } from 'pino'
import { formatSize } from '../core/decode.ts'
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
  /** Writes a line that is text already. beginning: what comes after the level, from its comma on, and is the same in many
   *  lines; rest: all else, to the line break. atMs: performance.now(), of now. */
  line(level: keyof typeof LABELS, beginning: string, rest: string, atMs: number): void
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

/** On standard error, since nothing else is left; where that has gone as well (`2>&1 | head`), nobody is told. */
function tellFault({ message }: Error): void {
  const kept = formatSize(MAX_WAITING_BYTES)
  try {
    writeSync(2, `The log cannot be written: ${message}; ${kept} of it wait, what comes beyond that is lost\n`)
  } catch {}
}

const LABELS = {
  trace: 'TRACE',
  debug: 'DEBUG',
  info: 'INFO',
  warn: 'WARNING',
  error: 'ERROR',
  fatal: 'CRITICAL',
} as const satisfies Record<Exclude<LogLevel, 'silent'>, string>

export function createLog(options: Pick<LogOptions, 'level'>, destination?: LogDestination): Log {
  const sink = destination === undefined ? createSink(1, MAX_WAITING_BYTES, tellFault) : null
  const out = destination ?? (sink as LogDestination)
  const heads = createHeads()
  let label: string = LABELS.info
  const logger = pino(
    {
      level: options.level,
      base: null,
      messageKey: 'message',
      errorKey: 'error',
      // pino has the level first and then the time. A line begins with its time here, so the level comes with that.
      formatters: { level: () => ({}) },
      timestamp: () => heads.now(label),
    },
    { write: (line) => void out.write(line) },
  )
  let least = logger.levelVal
  const isEnabled = (level: LogLevel): boolean => (pino.levels.values[level] ?? 0) >= least
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
    line(level, beginning, rest, atMs) {
      if (isEnabled(level)) out.write(heads.at(atMs, LABELS[level], beginning) + rest)
    },
    isEnabled,
    setLevel(level) {
      logger.level = level
      least = logger.levelVal
    },
    get droppedLines() {
      return sink?.droppedLines ?? 0
    },
    flush: () => sink?.flushSync(),
    close: () => sink?.close(),
  }
}

interface Heads {
  /** Time and level, as pino takes them: after a brace. */
  now(label: string): string
  /** From its brace, all that a line has in common with others of the same millisecond. */
  at(atMs: number, label: string, beginning: string): string
}

/** The first members of each line; the text is made once per millisecond. */
function createHeads(): Heads {
  let epochMs = Number.NaN
  let iso = ''
  let known = { fromMs: Number.NaN, iso, label: '', beginning: '', text: '' }

  const now = (label: string): string => {
    const nowMs = Date.now()
    if (nowMs !== epochMs) {
      epochMs = nowMs
      iso = new Date(nowMs).toISOString()
    }
    return `"timestamp":"${iso}","level":"${label}"`
  }
  return {
    now,
    at(atMs, label, beginning) {
      // A clock that was read less than a millisecond ago is not read again: that would take longer than the rest.
      const isNow = atMs >= known.fromMs && atMs < known.fromMs + 1 && known.iso === iso
      if (!isNow || label !== known.label || beginning !== known.beginning) {
        // By join, so that it is one text: `+` would only note what it consists of.
        const text = ['{', now(label), beginning].join('')
        known = { fromMs: atMs, iso, label, beginning, text }
      }
      return known.text
    },
  }
}
