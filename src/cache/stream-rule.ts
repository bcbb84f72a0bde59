// Answers that come as events: which they are, and what proves one whole. That its message has ended properly is not
// enough, since a service that fails half-way often ends it all the same; so a stream counts as cut short until its own
// events say otherwise. It is whole when
//
//   it ends where an event ends, and has at least one
//   the last event is the one that `terminal` names; where nothing is named, the one by which the format that it speaks
//     ends (OpenAI, Anthropic), and for any other format there is no more to ask
//   no event tells of an error, nor of an end that came too early: a terminator may follow both
//
// A GET for events is a subscription as a rule, and what such a stream has told so far is no answer for others. So it is
// a matter of this file only where `terminal` says that it has an end.
//
// Streams are text/event-stream, and JSON a line where the answer is to a POST or `terminal` is there.

import type { HeaderList } from '../core/context.ts'
import type { StreamEvent, StreamReader } from '../http/event-stream.ts'
import { EventStreamReader, eventsAlone, isEventStream } from '../http/event-stream.ts'
import { getCombined, getHeader } from '../http/headers.ts'
import { JsonLinesReader } from '../http/json-lines.ts'
import type { PlainJson } from '../http/json.ts'
import { isCutShortBy, memberOf, tellsError } from './answer-rule.ts'
import { type Condition, holds } from './condition.ts'
import type { Reason } from './reasons.ts'
import { TimelineWriter } from './timeline.ts'

/** Formats whose last event is known. */
export const STREAM_FORMATS = ['openai', 'anthropic', 'responses'] as const
export type StreamFormat = (typeof STREAM_FORMATS)[number]

/** What the last event of a whole stream is. */
export type TerminalOptions =
  | StreamFormat
  | {
      readonly event?: string | undefined
      readonly data?: string | undefined
      readonly when?: readonly Condition[] | undefined
    }

export interface StreamRuleOptions {
  readonly terminal?: TerminalOptions | undefined
  readonly storeUnfinished: boolean
  readonly storeIf?: readonly Condition[] | undefined
  readonly rejectIf?: readonly Condition[] | undefined
}

interface Head {
  readonly status: number
  readonly headers: HeaderList
}

export interface StreamRule {
  /** Why an answer that is a stream may not be stored, as far as its head tells; null where it may, and for all others. */
  readonly refusal: (method: string, answer: Head) => Reason | null
  /** Watches a stream while it comes; null for an answer that is none. */
  readonly recordOf: (method: string, headers: HeaderList) => StreamRecord | null
  readonly isStream: (method: string, headers: HeaderList) => boolean
  /** Stands for the rule: what was stored under a laxer one is not looked at. */
  readonly id: string
}

const LINES = /^\s*application\/(?:(?:x-)?ndjson|(?:x-)?jsonl(?:ines)?|json-seq|stream\+json)\b/i

/** methods: those that the cache of the route answers. */
export function compileStreamRule(options: StreamRuleOptions, methods: ReadonlySet<string>): StreamRule {
  const { terminal } = options
  const hasEnd = terminal !== undefined
  const isWatched = (method: string): boolean => hasEnd || method === 'POST'

  function kindOf(method: string, headers: HeaderList): 'events' | 'lines' | null {
    if (isEventStream(headers)) return 'events'
    return isWatched(method) && LINES.test(getHeader(headers, 'content-type') ?? '') ? 'lines' : null
  }

  const judgement: Judgement = {
    isTerminal: hasEnd ? compileTerminal(terminal) : null,
    judges: !options.storeUnfinished,
    // Conditions are about one JSON text, and this is none.
    refusesAll: [...(options.storeIf ?? []), ...(options.rejectIf ?? [])].length > 0,
  }
  return {
    refusal(method, { status, headers }) {
      if (kindOf(method, headers) === null) return null
      if (!isWatched(method) || !methods.has(method)) return 'event-stream'
      if (status !== 200) return 'status'
      const coding = getCombined(headers, 'content-encoding')?.trim().toLowerCase() ?? ''
      return coding === '' || coding === 'identity' ? null : 'unread'
    },
    recordOf(method, headers) {
      const kind = kindOf(method, headers)
      return kind === null ? null : new StreamRecord(kind, judgement)
    },
    isStream: (method, headers) => kindOf(method, headers) !== null,
    id: hasEnd ? JSON.stringify(terminal) : '',
  }
}

interface Judgement {
  /** null: nothing is named. */
  readonly isTerminal: Terminal | null
  /** Errors and early ends count. */
  readonly judges: boolean
  readonly refusesAll: boolean
}

type Terminal = (event: StreamEvent, json: PlainJson | undefined) => boolean

const byType =
  (type: string): Terminal =>
  ({ name }, json) =>
    name === type || memberOf(json, 'type') === type

const TERMINALS: { readonly [Format in StreamFormat]: Terminal } = {
  openai: ({ data }) => data?.trim() === '[DONE]',
  anthropic: byType('message_stop'),
  responses: byType('response.completed'),
}

function compileTerminal(terminal: TerminalOptions): Terminal {
  if (typeof terminal === 'string') return TERMINALS[terminal]
  const { event, data, when = [] } = terminal
  return (last, json) =>
    (event === undefined || last.name === event) &&
    (data === undefined || last.data?.trim() === data) &&
    (when.length === 0 || (json !== undefined && when.every((condition) => holds(condition, json) === true)))
}

/** By how it speaks; null: in no format that is known. */
function formatOf(name: string, json: PlainJson | undefined): StreamFormat | null {
  const object = memberOf(json, 'object')
  if (object === 'chat.completion.chunk' || object === 'text_completion') return 'openai'
  const type = memberOf(json, 'type')
  if (name === 'message_start' || type === 'message_start') return 'anthropic'
  return name === 'response.created' || type === 'response.created' ? 'responses' : null
}

/** What a stream has told so far, and when. */
export class StreamRecord {
  readonly #judgement: Judgement
  readonly #isLines: boolean
  readonly #reader: StreamReader
  readonly #timeline = new TimelineWriter()
  #fault: Reason | null = null
  #format: StreamFormat | null = null
  #last: { readonly event: StreamEvent; readonly json: PlainJson | undefined } | null = null

  constructor(kind: 'events' | 'lines', judgement: Judgement) {
    this.#judgement = judgement
    this.#isLines = kind === 'lines'
    const listener = { onEvent: (event: StreamEvent) => this.#onEvent(event) }
    this.#reader = this.#isLines ? new JsonLinesReader(listener) : new EventStreamReader(listener)
  }

  /** nowMs: any clock. */
  write(chunk: Buffer, nowMs: number): void {
    this.#reader.write(chunk)
    this.#timeline.note(this.#reader.eventBytes, nowMs)
  }

  /** True where it cannot end here, whatever its format: within an event, or not by the event that is named. */
  get isCutOff(): boolean {
    return (
      !this.#reader.isAtBoundary || (this.#judgement.isTerminal !== null && !this.#endsBy(this.#judgement.isTerminal))
    )
  }

  /** Why it may not be stored; null where it may. Ask when its message has ended properly. */
  refusal(): Reason | null {
    if (this.#judgement.refusesAll) return 'answer-not-json'
    if (this.#fault !== null) return this.#fault
    return this.isCutOff || this.#last === null || !this.#endsAsItSpeaks() ? 'unterminated' : null
  }

  /** What is stored of its body, with the times: without what is no event. */
  recorded(body: Buffer): { readonly body: Buffer; readonly timeline: Buffer } {
    return { body: this.#reader.hasNoise ? eventsAlone(body) : body, timeline: this.#timeline.finish() }
  }

  #endsBy(isTerminal: Terminal): boolean {
    return this.#last !== null && isTerminal(this.#last.event, this.#last.json)
  }

  #endsAsItSpeaks(): boolean {
    if (this.#judgement.isTerminal !== null) return true
    if (this.#format !== null) return this.#endsBy(TERMINALS[this.#format])
    // Ollama says of each line whether more will come.
    return memberOf(this.#last?.json, 'done') !== false
  }

  #onEvent(event: StreamEvent): void {
    const json = event.data === null ? undefined : parse(event.data)
    this.#last = { event, json }
    this.#format ??= formatOf(event.name, json)
    if (this.#judgement.judges) this.#fault ??= this.#faultOf(event, json)
  }

  #faultOf({ name, data }: StreamEvent, json: PlainJson | undefined): Reason | null {
    const type = memberOf(json, 'type')
    if (name === 'error' || type === 'error' || type === 'response.failed') return 'error-answer'
    if (data === null) return 'unread'
    if (json === undefined) return this.#isLines ? 'answer-not-json' : null
    if (tellsError(json) || tellsError(memberOf(json, 'response') ?? null)) return 'error-answer'
    return isCutShortBy(json) ? 'unfinished' : null
  }
}

function parse(text: string): PlainJson | undefined {
  try {
    return JSON.parse(text) as PlainJson
  } catch {
    return undefined
  }
}
