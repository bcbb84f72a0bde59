// Requests of many kinds at a steady rate, whatever becomes of them: each has its planned time, from which on it is timed,
// and each answer is checked for whose it is and whether it is whole.

import http from 'node:http'
import { monitorEventLoopDelay } from 'node:perf_hooks'
import { END, readStamp } from './stamp.ts'

/** Whoever has nothing by then has been left in the dark. */
const DEADLINE_MS = 10_000
/** So many that nobody waits for one. */
const CONNECTIONS = 500
const WARM_KEYS = 35
export const KEPT_KEYS = 50
const USERS = 20
const STREAM_MS = 1000
const SIZES = [1, 2, 4, 8, 16, 32, 64].map((kib) => kib * 1024)

/** warm, kept, mine: from the cache, for long, for a second, for each user; greedy: over its limit half of the time. */
export type Kind = 'warm' | 'kept' | 'mine' | 'live' | 'post' | 'stream' | 'greedy'

/** Of a hundred. */
const MIX: readonly (readonly [kind: Kind, share: number])[] = [
  ['warm', 45],
  ['kept', 10],
  ['mine', 5],
  ['live', 20],
  ['post', 10],
  ['stream', 5],
  ['greedy', 5],
]
const KINDS: readonly Kind[] = MIX.flatMap(([kind, share]) => Array.from({ length: share }, () => kind))

export interface Sample {
  readonly kind: Kind
  readonly id: string
  readonly path: string
  /** 0: there was no whole answer. */
  readonly status: number
  /** Why there was none. */
  readonly failure: string | null
  /** When it was to be sent. */
  readonly atMs: number
  readonly tookMs: number
  readonly cache: string
  readonly closes: boolean
  /** It was for another request, or another user. */
  readonly isForeign: boolean
  /** Its framing says that it is whole, and it is not. */
  readonly isTruncated: boolean
}

interface Asked {
  readonly kind: Kind
  readonly method: string
  readonly path: string
  readonly id: string
  readonly user: string
  readonly headers: Readonly<Record<string, string>>
  readonly body: string | null
  readonly atMs: number
}

export class Load {
  readonly samples: Sample[] = []
  readonly #url: string
  readonly #perSecond: number
  readonly #agent = new http.Agent({ keepAlive: true, maxSockets: CONNECTIONS })
  /** Streams would take the connections of the others. */
  readonly #streams = new http.Agent({ keepAlive: true })
  readonly #delay = monitorEventLoopDelay({ resolution: 10 })
  readonly #timer: NodeJS.Timeout
  readonly #open = new Set<Promise<void>>()
  readonly #startedAtMs = performance.now()
  isRunning = true
  #sent = 0

  constructor(url: string, perSecond: number) {
    this.#url = url
    this.#perSecond = perSecond
    this.#delay.enable()
    this.#timer = setInterval(() => this.#catchUp(), 4)
  }

  /** Sends no more; resolves when each has ended. */
  async stop(): Promise<void> {
    this.isRunning = false
    clearInterval(this.#timer)
    await Promise.all(this.#open)
    this.#delay.disable()
    this.#agent.destroy()
    this.#streams.destroy()
  }

  /** By their planned time. */
  between(fromMs: number, toMs: number = Infinity): readonly Sample[] {
    return this.samples.filter(({ atMs }) => atMs >= fromMs && atMs < toMs)
  }

  /** Of this very process: what is slower than this is not the gateway's doing. */
  get ownDelayMs(): number {
    return this.#delay.percentile(99) / 1e6 - 10
  }

  #catchUp(): void {
    const stepMs = 1000 / this.#perSecond
    const due = (performance.now() - this.#startedAtMs) / stepMs
    while (this.#sent < due) {
      const n = this.#sent++
      const asked = this.#ask(imagine(n, this.#startedAtMs + n * stepMs)).finally(() => this.#open.delete(asked))
      this.#open.add(asked)
    }
  }

  #ask(asked: Asked): Promise<void> {
    const { kind, method, path, id, headers, body, atMs } = asked
    return new Promise((resolve) => {
      let isDone = false
      const done = (more: Partial<Sample>): void => {
        if (isDone) return
        isDone = true
        clearTimeout(timer)
        const tookMs = performance.now() - atMs
        this.samples.push({ kind, id, path, atMs, tookMs, ...NOTHING, ...more })
        resolve()
      }
      const agent = kind === 'stream' ? this.#streams : this.#agent
      const sent = http.request(this.#url + path, { method, agent, headers: { 'X-Id': id, ...headers } })
      const timer = setTimeout(() => {
        done({ failure: 'silence' })
        sent.destroy()
      }, DEADLINE_MS)
      sent.on('error', (error: NodeJS.ErrnoException) => done({ failure: error.code ?? error.message }))
      sent.on('response', (message) => {
        let text = ''
        message.setEncoding('latin1').on('data', (chunk: string) => (text += chunk))
        message.on('error', (error: NodeJS.ErrnoException) => done({ failure: error.code ?? error.message }))
        message.on('end', () => {
          if (!message.complete) return done({ failure: 'cut off' })
          const status = message.statusCode ?? 0
          const cache = String(message.headers['x-cache'] ?? '')
          const closes = message.headers.connection === 'close'
          done({ status, cache, closes, ...(status === 200 && judge(asked, text)) })
        })
      })
      sent.end(body ?? undefined)
    })
  }
}

const NOTHING = { status: 0, failure: null, cache: '', closes: false, isForeign: false, isTruncated: false }

/** What is asked for. turn: the next each time. */
const REQUESTS: Readonly<Record<Kind, (id: string, turn: number) => Pick<Asked, 'path'> & Partial<Asked>>> = {
  warm: (_id, turn) => ({ path: `/warm/${turn % WARM_KEYS}/${SIZES[turn % SIZES.length]}` }),
  kept: (_id, turn) => ({ path: `/kept/${turn % KEPT_KEYS}/1024` }),
  mine(_id, turn) {
    const user = `user${turn % USERS}`
    return { path: `/mine/${turn % 3}/1024`, user, headers: { 'X-Api-Key': user } }
  },
  live: (id) => ({ path: `/live/${id}/1024` }),
  post: (id) => ({ method: 'POST', path: `/live/${id}/100`, body: 'x'.repeat(200) }),
  stream: (id) => ({ path: `/stream/${id}?ms=${STREAM_MS}` }),
  greedy: (id) => ({ path: `/calm/${id}`, headers: { 'X-Client': 'greedy' } }),
}

/** The n-th request. */
function imagine(n: number, atMs: number): Asked {
  // A step that shares no factor with 100 brings every kind in turn.
  const kind = KINDS[(n * 37) % KINDS.length] as Kind
  const id = `l${n}`
  const asked = { kind, method: 'GET', id, user: '', headers: {}, body: null, atMs }
  return { ...asked, ...REQUESTS[kind](id, Math.floor(n / 7)) }
}

/** Whether a whole answer is what was asked for. */
function judge({ kind, path, id, user }: Asked, text: string): Pick<Sample, 'isForeign' | 'isTruncated'> {
  const stamp = readStamp(text)
  const isShared = kind === 'warm' || kind === 'kept' || kind === 'mine'
  const isMine = stamp?.path === path.replace(/\?.*/, '') && stamp.user === user && (isShared || stamp.id === id)
  const bytes = /^\/\w+\/\w+\/(\d+)/.exec(path)?.[1]
  const isShort = bytes !== undefined && text.length !== text.indexOf('\n') + 1 + Number(bytes) + END.length
  return { isForeign: stamp !== null && !isMine, isTruncated: stamp === null || !text.endsWith(END) || isShort }
}
