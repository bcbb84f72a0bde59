// Two gateways that differ in their lanes alone, each before an origin of its own that answers the same to the same. What
// the one is sent the other is sent, step by step, and of both is told what can be seen from outside.
//
// Nothing is left to the machine: the clock stands until a step moves it, random numbers are all the same, and what threads
// do is done at once (threads.ts). When nothing more will come is not waited for but known: gateways, origins and clients
// are in one process, so once nothing moves in it any more, nothing will. What waits for something outside of it, or for
// time, says so by a step.

import net, { type AddressInfo } from 'node:net'
import { vi } from 'vitest'
import type { Lanes } from '../../../src/server/connection.ts'
import { nextRequestId } from '../../../src/server/request-id.ts'
import { converse, request } from '../client.ts'
import { openConnections } from '../edge.ts'
import { type TestGateway, startGateway, until } from '../gateway.ts'
import { type Origin, type Script, startOrigin } from '../origin.ts'
import {
  type Counts,
  type Observed,
  type Own,
  type Piece,
  countedSamples,
  countedStats,
  createTranscriber,
} from './observed.ts'
import { verifyAtOnce } from './threads.ts'

/** Bytes in one write, latin1; or something that happens between two writes. */
export type Step = string | Event

type Event =
  | { readonly kind: 'settled' | 'finished' | 'closed' | 'paused' | 'resumed' | 'reset' }
  | { readonly kind: 'logged'; readonly lines: number }
  | { readonly kind: 'moved'; readonly seconds: number }
  | { readonly kind: 'passed'; readonly ms: number }
  | { readonly kind: 'done'; readonly act: (gateway: TestGateway, originUrl: string) => unknown }

/** All that was sent has been answered, as far as it will be. */
export const SETTLED: Event = { kind: 'settled' }
/** The client ends its side. */
export const FINISHED: Event = { kind: 'finished' }
/** The gateway has ended the connection. */
export const CLOSED: Event = { kind: 'closed' }
/** The client reads nothing more; until RESUMED. */
export const PAUSED: Event = { kind: 'paused' }
export const RESUMED: Event = { kind: 'resumed' }
/** The client breaks off. */
export const RESET: Event = { kind: 'reset' }
/** So many requests of this conversation are over. */
export const logged = (lines: number): Event => ({ kind: 'logged', lines })
/** The clock goes on. */
export const move = (seconds: number): Event => ({ kind: 'moved', seconds })
/** Time passes, in which nothing may happen. */
export const pass = (ms: number): Event => ({ kind: 'passed', ms })
/** Something that an operator does, on both gateways. */
export const act = (done: (gateway: TestGateway, originUrl: string) => unknown): Event => ({ kind: 'done', act: done })

/** What happens on one connection. */
export interface Talk {
  readonly steps: readonly Step[]
  /** The client's address; all of 127.0.0.0/8 are at hand. */
  readonly from?: string
  /** Where the last request goes, which shows whether the connection is still good: into a packet of its own when all else
   *  is answered, or behind the last bytes. */
  readonly last: 'apart' | 'behind'
}

export interface Pair {
  /** Plays a conversation on both. */
  play(talk: Talk): Promise<Both<Observed>>
  /** All that is counted: metrics, statistics, and what is stored. */
  counts(): Both<Counts>
  /** Answers that the fast path has given, which the other gateway never does. */
  fastAnswers(): Both<number>
  close(): Promise<void>
}

export type Both<T> = Readonly<Record<Lanes, T>>

export interface PairOptions {
  /** The whole YAML for a gateway before this origin. It stores /marker. */
  readonly yaml: (originUrl: string, lanes: Lanes) => string
  /** Made for each origin: what one remembers the other does not. */
  readonly script: () => Script
  /** True where somebody else's clock tells when a limit is full again. */
  readonly hasOtherClock?: boolean
}

/** What the clock says at the start. */
export const MOMENT = Date.UTC(2026, 2, 1, 12)
export const MARKER = 'GET /marker HTTP/1.1\r\nHost: gateway.test\r\n\r\n'
/** The answer to MARKER ends with it, and no other has it. */
export const MARKED = '<<the marker>>'

/** Turns of the event loop without any movement after which there is none; the more where an upstream is asked, which may
 *  be connecting, or wait for a body that does not come. */
const CALM_TURNS = 6
const CALM_TURNS_AT_WORK = 40

export async function startPair(options: PairOptions): Promise<Pair> {
  vi.useFakeTimers({ toFake: ['Date'], now: MOMENT })
  const replaced = [vi.spyOn(Math, 'random').mockReturnValue(0.5), verifyAtOnce()]
  // Ids grow longer as they are counted up, and with them the problems that name them. Beyond this one they have one length
  // for 58 million requests.
  while (nextRequestId().replace(/^.*-/, '').length < 5);
  const echo = await startEcho()
  const sides: Both<Side> = {
    full: await startSide('full', options, echo),
    both: await startSide('both', options, echo),
  }
  const onBoth = async <T>(play: (lanes: Lanes) => Promise<T>): Promise<Both<T>> => {
    const [full, both] = await Promise.all([play('full'), play('both')])
    return { full, both }
  }

  return {
    async play({ steps, from, last }) {
      const clients = await onBoth((lanes) => sides[lanes].connect(from))
      for (const [i, step] of steps.entries()) {
        const isLast = i === steps.length - 1
        const next = typeof step === 'string' && isLast && last === 'behind' ? step + MARKER : step
        await onBoth((lanes) => clients[lanes].play(next))
        if (typeof next !== 'string' && next.kind === 'moved') vi.setSystemTime(Date.now() + next.seconds * 1000)
      }
      return onBoth((lanes) => clients[lanes].end(last))
    },
    counts: () => ({ full: sides.full.counts(), both: sides.both.counts() }),
    fastAnswers: () => ({ full: fastAnswersOf(sides.full.gateway), both: fastAnswersOf(sides.both.gateway) }),
    async close() {
      await onBoth((lanes) => sides[lanes].close())
      await echo.close()
      for (const each of replaced) each.mockRestore()
      vi.useRealTimers()
    },
  }
}

/** The series that tells the lanes apart. */
const OF_LANES = 'weirgate_fast_answers_total'

const fastAnswersOf = ({ gateway }: TestGateway): number =>
  Number(new RegExp(`^${OF_LANES} (\\d+)$`, 'm').exec(gateway.metrics())?.[1])

// ---- one of the two ----

interface Side {
  readonly gateway: TestGateway
  connect(from?: string): Promise<Client>
  counts(): Counts
  close(): Promise<void>
}

interface Client {
  play(step: Step): Promise<void>
  /** Asks for the marker where it has not been asked for and somebody listens, then ends. */
  end(last: Talk['last']): Promise<Observed>
}

/** Has something begun some days ago: the time since then, which some answers tell, has one length for months. */
function longAgo<T>(begin: () => T): T {
  const nowMs = performance.now()
  const clock = vi.spyOn(performance, 'now').mockReturnValue(nowMs - 1e9)
  const begun = begin()
  clock.mockRestore()
  return begun
}

interface SideParts {
  readonly gateway: TestGateway
  readonly origin: Origin
  readonly own: Own
  readonly echo: Echo
}

async function startSide(
  lanes: Lanes,
  { yaml, script, hasOtherClock = false }: PairOptions,
  echo: Echo,
): Promise<Side> {
  const origin = await startOrigin(script())
  const gateway = await longAgo(() => startGateway(yaml(origin.url, lanes), {}, { lanes }))
  const { headers } = await request(`${gateway.url}/marker`, { headers: { Host: 'gateway.test' } })
  const idPrefix = /^.*-/.exec(String(headers['x-request-id']))?.[0] ?? ''
  const side = { gateway, origin, own: { idPrefix, originPort: origin.port, hasOtherClock }, echo }
  return {
    gateway,
    connect: (from) => connect(side, from),
    counts: () => ({
      metrics: countedSamples(gateway.gateway.metrics(), OF_LANES),
      stats: countedStats(gateway.gateway.stats()),
    }),
    async close() {
      // What the gateway ends on its side it lets go of, too.
      await until(() => openConnections(gateway) === 0, 'all connections to be gone')
      await gateway.close()
      await origin.close()
    },
  }
}

async function connect({ gateway, origin, own, echo }: SideParts, from?: string): Promise<Client> {
  const { length: loggedBefore } = gateway.log
  const { length: askedBefore } = origin.seen
  const client = await converse(gateway.port, '', from)
  /** What has been received, with the time by the clock. */
  const pieces: Piece[] = []
  let isFinished = false
  let waitedMs: number | null = null

  /** Resolves when nothing moves any more: no byte on its way, nobody at work. */
  async function settle(): Promise<void> {
    let before = ''
    for (let calmTurns = 0; calmTurns < CALM_TURNS_AT_WORK; calmTurns++) {
      if (calmTurns >= CALM_TURNS && !isAtWork(gateway)) break
      await turn()
      const now = `${client.received.length} ${client.closed} ${gateway.log.length} ${origin.seen.length}`
      if (now !== before) calmTurns = 0
      before = now
    }
    const noted = pieces.reduce((sum, { text }) => sum + text.length, 0)
    pieces.push({ text: client.received.slice(noted), nowMs: Date.now() })
  }

  function finish(): void {
    isFinished = true
    client.finish()
  }

  async function play(step: Step): Promise<void> {
    if (typeof step === 'string') {
      if (client.closed || isFinished) return
      client.send(Buffer.from(step, 'latin1'))
      return turn()
    }
    switch (step.kind) {
      case 'settled':
      case 'moved':
        return settle()
      case 'finished':
        finish()
        return turn()
      case 'closed': {
        const sinceMs = performance.now()
        await client.end()
        waitedMs = performance.now() - sinceMs
        return
      }
      case 'paused':
        return client.pause()
      case 'resumed':
        return client.resume()
      case 'reset':
        return client.reset()
      case 'logged':
        return until(() => gateway.log.length >= loggedBefore + step.lines, `${step.lines} lines in the log`)
      case 'passed':
        return new Promise((resolve) => setTimeout(resolve, step.ms))
      case 'done':
        // Not while something else happens: which came first would be the machine's to say.
        await settle()
        await step.act(gateway, origin.url)
    }
  }

  const isOver = () => client.closed || client.received.includes(MARKED)
  const saysClose = () => /^connection: close\r$/im.test(client.received)

  return {
    play,
    async end(last) {
      await settle()
      if (last === 'apart') await play(MARKER)
      await settle()
      // It may be a part of something that has no end yet: then the gateway waits for us. That nothing is on its way
      // is sure once what was sent later has come.
      for (let i = 0; i < 3 && !isOver(); i++) {
        await echo.roundTrip()
        await settle()
      }
      const staysOpen = client.received.includes(MARKED) && !client.closed && !saysClose()
      // What says that it ends has to do so itself.
      if (!client.closed && !saysClose()) finish()
      await client.end()
      await settle()
      const transcriber = createTranscriber(own)
      return {
        answers: transcriber.answers(pieces),
        closedBy: client.closedBy,
        staysOpen,
        waitedMs,
        log: gateway.log.slice(loggedBefore).map((line) => transcriber.logLine(line)),
        asked: await Promise.all(origin.seen.slice(askedBefore).map((seen) => transcriber.asked(seen))),
      }
    },
  }
}

/** True while an upstream is asked. */
const isAtWork = ({ gateway }: TestGateway): boolean =>
  gateway.upstreams().some(({ targets }) => targets.some(({ in_flight, queued }) => in_flight + queued > 0))

/** What could be read has been read, and what waited for that has been done. Two, since the first may come before the
 *  reading. */
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(() => setImmediate(resolve)))

interface Echo {
  /** A byte goes to another socket and comes back, behind all that is on its way. */
  roundTrip(): Promise<void>
  close(): Promise<void>
}

async function startEcho(): Promise<Echo> {
  const server = net.createServer((socket) => socket.pipe(socket))
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const socket = net.connect({ port: (server.address() as AddressInfo).port, host: '127.0.0.1', noDelay: true })
  return {
    roundTrip: () =>
      new Promise((resolve) => {
        socket.once('data', () => resolve())
        socket.write('.')
      }),
    async close() {
      socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
