// What one gateway lets be seen of a conversation, in a form in which two gateways can be compared: whatever each of them
// has of its own by right (times, ids, ports, random boundaries) is replaced by a word. All else stays as it was: the
// order and the spelling of fields, every byte of a body.

import type { Seen } from '../origin.ts'

/** All that can be told from outside of one conversation. */
export interface Observed {
  /** The bytes of all answers, latin1. */
  readonly answers: string
  readonly closedBy: 'end' | 'reset' | null
  /** The connection was still good for another request at the end. */
  readonly staysOpen: boolean
  /** How long the gateway took to close, where that was waited for. Not compared. */
  readonly waitedMs: number | null
  /** The lines of the requests, in order. */
  readonly log: readonly string[]
  /** What the origin was asked, in order. */
  readonly asked: readonly string[]
}

/** What one gateway's words are that no other has. */
export interface Own {
  /** With which the ids of its requests begin. */
  readonly idPrefix: string
  readonly originPort: number
  readonly hasOtherClock: boolean
}

/** Received bytes as latin1 text. nowMs: the clock while they came. */
export interface Piece {
  readonly text: string
  readonly nowMs: number
}

export interface Transcriber {
  answers(pieces: readonly Piece[]): string
  logLine(line: Readonly<Record<string, unknown>>): string
  asked(seen: Seen): Promise<string>
}

/** For one conversation: an id is told by the place where it came up first, so that it shows where the same comes again. */
export function createTranscriber({ idPrefix, originPort, hasOtherClock }: Own): Transcriber {
  const ids = new Map<string, string>()
  const boundaries = new Map<string, string>()
  const idPattern = new RegExp(`${idPrefix}[0-9a-z]+`, 'g')
  const numbered = (known: Map<string, string>, what: string) => (text: string) => {
    const word = known.get(text) ?? `<${what} ${known.size + 1}>`
    known.set(text, word)
    return word
  }
  const withoutIds = (text: string) => text.replaceAll(idPattern, numbered(ids, 'id'))
  const withoutPorts = (text: string) => text.replaceAll(`127.0.0.1:${originPort}`, '<origin>')

  return {
    answers(pieces) {
      let text = withoutIds(pieces.map(withoutNow).join(''))
        .replaceAll(/^X-Process-Time: \d+\.\d\dms\r\n/gm, 'X-Process-Time: <ms>\r\n')
        .replaceAll(/"uptime_s":\d+/g, '"uptime_s":<s>')
      for (const [, boundary = ''] of text.matchAll(/boundary=([0-9a-f]{32})\r\n/g)) {
        text = text.replaceAll(boundary, numbered(boundaries, 'boundary'))
      }
      return hasOtherClock
        ? text.replaceAll(/^(X-RateLimit-Reset: |RateLimit: .*t=|Retry-After: )\d+/gm, '$1<s>')
        : text
    },
    logLine(line) {
      const told: Record<string, unknown> = {}
      for (const [name, value] of Object.entries(line)) {
        const isTime = name === 'timestamp' || (name.endsWith('_ms') && typeof value === 'number')
        told[name] = isTime ? `<${name}>` : value
      }
      return withoutPorts(withoutIds(JSON.stringify(told)))
    },
    async asked({ method, url, rawHeaders, body }) {
      const fields = rawHeaders.flatMap((name, i) => (i % 2 === 0 ? [`${name}: ${rawHeaders[i + 1]}`] : []))
      const head = [`${method} ${url}`, ...fields].join('\n').replaceAll(/\bweirgate-[0-9a-f]{8}\b/g, '<instance>')
      return withoutPorts(withoutIds(`${head}\n\n${(await body).toString('latin1')}`))
    },
  }
}

const withoutNow = ({ text, nowMs }: Piece): string =>
  text.replaceAll(/^Date: (.*)\r\n/gm, (line, date: string) => (isNow(date, nowMs) ? 'Date: <now>\r\n' : line))

/** The time of this answer, by the clock of the gateway or by node:http's, which no test can set. */
function isNow(date: string, nowMs: number): boolean {
  const ms = Date.parse(date)
  return Math.abs(ms - nowMs) < 1000 || Math.abs(ms - realNowMs()) < 5000
}

const realNowMs = (): number => performance.timeOrigin + performance.now()

// ---- the comparison ----

/** Characters before and behind the first one that differs. */
const CONTEXT_CHARS = 300

/** Where the two differ first, in words; null where they do not. */
export function difference(full: Observed, both: Observed): string | null {
  const told = (observed: Observed) =>
    `closed by ${observed.closedBy}, ${observed.staysOpen ? 'was' : 'was not'} open for more`
  const texts = [
    ['answers', full.answers, both.answers],
    ['connection', told(full), told(both)],
    ['log', full.log.join('\n'), both.log.join('\n')],
    ['requests to the origin', full.asked.join('\n---\n'), both.asked.join('\n---\n')],
  ] as const
  const found = texts.flatMap(([what, a, b]) => (a === b ? [] : [firstDifference(what, a, b)]))
  return found.length === 0 ? null : found.join('\n')
}

function firstDifference(what: string, full: string, both: string): string {
  let at = 0
  while (at < full.length && full[at] === both[at]) at++
  const start = Math.max(0, at - CONTEXT_CHARS)
  const from = (text: string) => JSON.stringify(text.slice(at, at + CONTEXT_CHARS))
  return `${what} differ at ${at}, behind ${JSON.stringify(full.slice(start, at))}\n  full: ${from(full)}\n  both: ${from(both)}`
}

// ---- what is counted ----

export interface Counts {
  /** Samples, line by line. */
  readonly metrics: readonly string[]
  readonly stats: unknown
}

/** Series that are about time, about the process (a connection lingers for a while after its end), or about what goes on
 *  behind answers, at its own pace. */
const OF_TIME =
  /^(?:process_|nodejs_|weirgate_cache_(?:tier|disk)_|weirgate_upstream_(?:connections|requests_)|weirgate_purge_log_age_seconds|weirgate_saved_seconds_total|weirgate_(?:request_duration|limit_wait)_seconds_(?:sum|bucket\{.*le="(?!\+Inf)))/

/** The samples of a metrics text that do not depend on the machine. ofLanes: the series that tells the lanes apart. */
export const countedSamples = (text: string, ofLanes: string): string[] =>
  text
    .split('\n')
    .filter((line) => line !== '' && !line.startsWith('#') && !OF_TIME.test(line) && !line.startsWith(ofLanes))
    // Each lane has an origin of its own.
    .map((line) => line.replace(/(target="http:\/\/127\.0\.0\.1):\d+"/, '$1"'))

/** The numbers of /api/stats that do not depend on the machine: times go, at any depth. */
export function countedStats(stats: unknown): unknown {
  const isOfTime = (name: string) => ['latency_ms', 'uptime_s', 'last_minute', 'seconds'].includes(name)
  return JSON.parse(JSON.stringify(stats, (name, value: unknown) => (isOfTime(name) ? undefined : value))) as unknown
}
