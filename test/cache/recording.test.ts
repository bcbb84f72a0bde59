import * as fc from 'fast-check'
import { describe, expect, it } from 'vitest'
import type { BodyStream } from '../../src/core/context.ts'
import type { Reason } from '../../src/cache/reasons.ts'
import { Recording, type RecordingOwner } from '../../src/cache/recording.ts'
import { HandBody, NotingSink } from '../support/body.ts'

const KIB = 1024
const MIB = 1024 * KIB

class Owner implements RecordingOwner {
  heldBytes = 0
  crowded = false
  mostHeldBytes = 0
  verdict: Buffer | Reason | null = null
  readonly #maxBytes: number

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  hold(deltaBytes: number): void {
    this.heldBytes += deltaBytes
    this.mostHeldBytes = Math.max(this.mostHeldBytes, this.heldBytes)
  }
  refuse(bytes: number): Reason | null {
    return bytes > this.#maxBytes ? 'too-large' : null
  }
  isCrowded(): boolean {
    return this.crowded
  }
  kept(body: Buffer): void {
    this.#decide(body)
  }
  refused(why: Reason): void {
    this.#decide(why)
  }
  #decide(verdict: Buffer | Reason): void {
    if (this.verdict !== null) throw new Error('decided twice')
    this.verdict = verdict
  }
}

/** A recording whose first reader is there. */
function record({ maxBytes = Infinity, declaredBytes = null as number | null, leaderRoom = Infinity } = {}) {
  const source = new HandBody()
  const owner = new Owner(maxBytes)
  const recording = new Recording(source, declaredBytes, owner)
  const left: string[] = []
  const leaderBody = recording.reader(() => left.push('leader'))
  const leader = new NotingSink(leaderRoom)
  recording.start()
  leaderBody.pipeTo(leader)
  const join = (sink: NotingSink, name = 'follower'): BodyStream => {
    const opened = recording.open(() => left.push(name))
    if (opened === null || opened.body === null || Buffer.isBuffer(opened.body)) throw new Error('no stream to join')
    opened.body.pipeTo(sink)
    return opened.body
  }
  return { source, owner, recording, leader, leaderBody, left, join }
}

describe('a recording', () => {
  it('gives a reader who joins late everything from the beginning', () => {
    const { source, leader, join, owner, left } = record()
    source.send('one ')
    const follower = new NotingSink()
    join(follower)
    source.send('two')
    source.end()
    expect([leader.text, follower.text]).toEqual(['one two', 'one two'])
    expect([leader.outcome, follower.outcome]).toEqual(['whole', 'whole'])
    expect(owner.verdict).toEqual(Buffer.from('one two'))
    expect(owner.heldBytes).toBe(0)
    expect(left.toSorted()).toEqual(['follower', 'leader'])
  })

  it('keeps a copy of its own, and not a piece of what was read', () => {
    const { source, owner } = record()
    source.send(Buffer.alloc(64 * KIB, 'x').subarray(0, 10))
    source.end()
    const body = owner.verdict as Buffer
    expect(body.buffer.byteLength).toBe(10)
  })

  it('hands over one buffer to who comes when it has ended', () => {
    const { source, recording } = record()
    source.send('all')
    source.end()
    let hasLeft = false
    expect(recording.open(() => (hasLeft = true))).toEqual({ body: Buffer.from('all') })
    expect(hasLeft).toBe(true)
  })

  it('gives a slow reader the rest when it has ended, and holds nothing for it', () => {
    const { source, leader, leaderBody, owner } = record({ leaderRoom: 1 })
    for (const chunk of ['a', 'b', 'c']) source.send(chunk)
    source.end()
    expect([leader.text, leader.outcome, owner.heldBytes]).toEqual(['a', 'open', 0])
    leader.drain()
    leaderBody.resume()
    expect([leader.text, leader.outcome]).toEqual(['abc', 'whole'])
    expect(leader.chunks).toHaveLength(2)
  })

  it('breaks every reader off at once when it breaks, whatever they have still to read', () => {
    const { source, leader, owner, join, recording, left } = record({ leaderRoom: 1 })
    source.send('a')
    source.send('b')
    const follower = new NotingSink()
    join(follower)
    source.fail()
    expect([leader.outcome, follower.outcome]).toEqual(['broken', 'broken'])
    expect([owner.verdict, owner.heldBytes]).toEqual([null, 0])
    expect(recording.open(() => {})).toBeNull()
    expect(left.toSorted()).toEqual(['follower', 'leader'])
  })

  it('breaks a reader off who had not begun to read', () => {
    const { source, recording } = record()
    const opened = recording.open(() => {})
    source.send('a')
    source.fail()
    const sink = new NotingSink()
    if (opened === null || Buffer.isBuffer(opened.body)) throw new Error('no stream')
    opened.body?.pipeTo(sink)
    expect([sink.outcome, sink.text]).toEqual(['broken', ''])
  })

  it('tells a reader who left nothing more', () => {
    const { source, leader, leaderBody, left } = record()
    source.send('a')
    leaderBody.cancel()
    leaderBody.cancel()
    source.send('b')
    source.end()
    expect([leader.text, leader.outcome]).toEqual(['a', 'open'])
    expect(left).toEqual(['leader'])
  })

  it('keeps an empty body', () => {
    const { source, leader, owner, recording } = record()
    source.end()
    expect(leader.outcome).toBe('whole')
    expect(owner.verdict).toEqual(Buffer.alloc(0))
    expect(recording.open(() => {})).toEqual({ body: Buffer.alloc(0) })
  })

  it('goes on for its readers when it may not be kept, and lets nobody join', () => {
    const { source, leader, owner, recording, left } = record({ maxBytes: 3 })
    source.send('abc')
    expect(owner.verdict).toBeNull()
    source.send('d')
    expect(owner.verdict).toBe('too-large')
    expect(recording.open(() => {})).toBeNull()
    source.send('e')
    source.end()
    expect([leader.text, leader.outcome]).toEqual(['abcde', 'whole'])
    expect(owner.heldBytes).toBe(0)
    expect(left).toEqual(['leader'])
  })

  it('lets go of what is held for the last reader of a body that is not kept', () => {
    const { source, leaderBody, owner } = record({ maxBytes: 3, leaderRoom: 1 })
    source.send('abc')
    source.send('def')
    source.end()
    expect(owner.heldBytes).toBe(3)
    leaderBody.cancel()
    expect(owner.heldBytes).toBe(0)
  })

  it('stays for who only wants it kept', () => {
    const { source, owner, recording, leaderBody } = record()
    let isSettled = false
    recording.stay(() => (isSettled = true))
    leaderBody.cancel()
    for (let i = 0; i < 64; i++) source.send(Buffer.alloc(64 * KIB))
    expect([source.isWaiting, isSettled]).toEqual([false, false])
    source.end()
    expect((owner.verdict as Buffer).length).toBe(4 * MIB)
    expect(isSettled).toBe(true)
  })

  it.each<[string, (source: HandBody) => void]>([
    ['may not be kept', (source) => source.send('abcd')],
    ['breaks', (source) => source.fail()],
  ])('lets go of who only wants it kept when it %s', (_name, happen) => {
    const { source, recording } = record({ maxBytes: 3 })
    let settled = 0
    recording.stay(() => settled++)
    happen(source)
    recording.stay(() => settled++)
    expect(settled).toBe(2)
  })
})

describe('the pace of a recording', () => {
  const CHUNK = Buffer.alloc(64 * KIB, 'x')
  /** Sends until the recording wants it to wait, at most 16 MiB; answers the bytes sent. */
  const sendAll = (source: HandBody): number => {
    let bytes = 0
    while (!source.isWaiting && bytes < 16 * MIB) {
      source.send(CHUNK)
      bytes += CHUNK.length
    }
    return bytes
  }

  it("is the origin's, where the length is declared", () => {
    const { source } = record({ declaredBytes: 16 * MIB, leaderRoom: 1 })
    expect(sendAll(source)).toBe(16 * MIB)
  })

  it('is at most 1 MiB ahead of the fastest reader, where it is not', () => {
    const { source, leader, leaderBody, join } = record({ leaderRoom: 1 })
    expect(sendAll(source)).toBe(MIB + 2 * CHUNK.length)
    const follower = new NotingSink()
    join(follower)
    expect(source.isWaiting).toBe(false)
    expect(sendAll(source)).toBe(16 * MIB)
    expect(follower.bytes).toBe(17 * MIB + 2 * CHUNK.length)
    leader.drain()
    leaderBody.resume()
    expect(leader.bytes).toBe(2 * CHUNK.length)
  })

  it('is that of the fastest reader, when it is not kept', () => {
    const { source, leader, leaderBody, owner } = record({ maxBytes: 0, leaderRoom: 1 })
    expect(sendAll(source)).toBe(3 * CHUNK.length)
    expect(owner.heldBytes).toBe(2 * CHUNK.length)
    leader.drain()
    leaderBody.resume()
    expect(source.isWaiting).toBe(false)
  })

  it('is its own again for who wants it kept, where all readers have gone', () => {
    const { source, leaderBody, recording } = record({ leaderRoom: 1 })
    sendAll(source)
    leaderBody.cancel()
    expect(source.isWaiting).toBe(true)
    recording.stay(() => {})
    expect(source.isWaiting).toBe(false)
  })

  it('cuts off who lags 8 MiB behind others, when it is not kept', () => {
    const { source, leader, leaderBody, join, owner, left } = record({ maxBytes: MIB, leaderRoom: 1 })
    const fast = new NotingSink()
    join(fast, 'fast')
    expect(sendAll(source)).toBe(16 * MIB)
    expect(leader.outcome).toBe('broken')
    expect(leader.error?.code).toBe('client_gone')
    expect(left).toEqual(['leader'])
    source.end()
    expect([fast.bytes, fast.outcome]).toEqual([16 * MIB, 'whole'])
    expect(owner.heldBytes).toBe(0)
    expect(owner.mostHeldBytes).toBeLessThanOrEqual(8 * MIB + 2 * CHUNK.length)
    leader.drain()
    leaderBody.resume()
    expect(leader.bytes).toBe(CHUNK.length)
  })

  it('cuts off who lags at all, while too much is held', () => {
    const { source, leader, join, owner } = record({ maxBytes: 0, leaderRoom: 1 })
    const fast = new NotingSink()
    owner.crowded = true
    join(fast, 'fast')
    sendAll(source)
    source.end()
    expect([leader.outcome, fast.outcome]).toEqual(['broken', 'whole'])
    expect(owner.mostHeldBytes).toBeLessThanOrEqual(64 * KIB + 2 * CHUNK.length)
  })

  it.each([false, true])('never cuts off a reader who is alone (too much is held: %s)', (crowded) => {
    const { source, leader, leaderBody, owner } = record({ maxBytes: MIB, leaderRoom: 1 })
    owner.crowded = crowded
    for (let sent = 0; sent < 12 * MIB; sent += sendAll(source)) {
      while (source.isWaiting) {
        leader.drain()
        leaderBody.resume()
      }
    }
    expect(leader.outcome).toBe('open')
  })
})

describe('a recording that is called back in the middle of a call', () => {
  it('goes on when a sink asks for more from inside a write that answers false', () => {
    const { source, recording } = record()
    const opened = recording.open(() => {})
    const body = opened?.body as BodyStream
    const got: string[] = []
    body.pipeTo({
      write(chunk) {
        got.push(chunk.toString())
        body.resume()
        return false
      },
      end: () => got.push('end'),
      fail: () => got.push('fail'),
    })
    source.send('a')
    source.send('b')
    source.end()
    expect(got).toEqual(['a', 'b', 'end'])
  })

  it('survives a sink that leaves from inside a write, and with it the whole fetch', () => {
    const source = new HandBody()
    const owner = new Owner(Infinity)
    const recording = new Recording(source, null, owner)
    const body = recording.reader(() => source.fail())
    recording.start()
    const got: string[] = []
    body.pipeTo({
      write(chunk) {
        got.push(chunk.toString())
        body.cancel()
        return true
      },
      end: () => got.push('end'),
      fail: () => got.push('fail'),
    })
    source.send('a')
    expect(got).toEqual(['a'])
    expect([owner.verdict, owner.heldBytes]).toEqual([null, 0])
  })

  it('takes an origin that goes on sending from inside resume', () => {
    let sent = 0
    const owner = new Owner(0)
    const leader = new NotingSink(1)
    const recording: Recording = new Recording(
      {
        pipeTo: () => {},
        resume: () => void (sent++ < 3 && recording.write(Buffer.alloc(100 * KIB))),
        cancel: () => {},
      },
      null,
      owner,
    )
    const body = recording.reader(() => {})
    recording.start()
    body.pipeTo(leader)
    recording.write(Buffer.alloc(1))
    expect(recording.write(Buffer.alloc(100 * KIB))).toBe(false)
    for (let i = 0; i < 4; i++) {
      leader.drain()
      body.resume()
    }
    expect([sent, leader.bytes, owner.heldBytes]).toEqual([4, 1 + 400 * KIB, 0])
  })

  it('serves a long backlog to a sink that asks for more from inside each write', () => {
    const { source, recording } = record({ declaredBytes: 20_000 })
    const body = recording.open(() => {})?.body as BodyStream
    for (let i = 0; i < 20_000; i++) source.send('x')
    let bytes = 0
    body.pipeTo({
      write(chunk) {
        bytes += chunk.length
        body.resume()
        return true
      },
      end: () => {},
      fail: () => {},
    })
    expect(bytes).toBe(20_000)
  })
})

type Step =
  | { readonly do: 'send'; readonly bytes: number }
  | { readonly do: 'join'; readonly roomFor: number }
  | { readonly do: 'drain' | 'cancel'; readonly who: number }
  | { readonly do: 'stay' }

const steps = fc.array(
  fc.oneof(
    {
      weight: 5,
      arbitrary: fc.record({ do: fc.constant('send' as const), bytes: fc.integer({ min: 0, max: 40 * KIB }) }),
    },
    { weight: 2, arbitrary: fc.record({ do: fc.constant('join' as const), roomFor: fc.integer({ min: 1, max: 6 }) }) },
    { weight: 4, arbitrary: fc.record({ do: fc.constant('drain' as const), who: fc.nat(9) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('cancel' as const), who: fc.nat(9) }) },
    { weight: 1, arbitrary: fc.record({ do: fc.constant('stay' as const) }) },
  ),
  { maxLength: 60, size: 'max' },
)

describe('whatever happens to a recording', () => {
  it.each(['end', 'fail'] as const)('each reader gets a prefix, and all of it only when it is whole: %s', (ending) => {
    fc.assert(
      fc.property(steps, fc.integer({ min: 0, max: 400 * KIB }), fc.boolean(), (history, maxBytes, isDeclared) => {
        const source = new HandBody()
        const owner = new Owner(maxBytes)
        const recording = new Recording(source, isDeclared ? 0 : null, owner)
        const readers: { body: BodyStream; sink: NotingSink; isCancelled: boolean; left: number }[] = []
        const sent: Buffer[] = []
        let stays = 0
        let settled = 0
        const join = (roomFor: number, body: (left: () => void) => BodyStream | null) => {
          const sink = new NotingSink(roomFor)
          const view = body(() => reader.left++)
          if (view === null) return
          const reader = { body: view, sink, isCancelled: false, left: 0 }
          readers.push(reader)
          view.pipeTo(sink)
        }
        const drain = (reader: (typeof readers)[number] | undefined) => {
          if (reader === undefined || reader.isCancelled) return
          reader.sink.drain()
          reader.body.resume()
        }
        join(3, (left) => recording.reader(left))
        recording.start()

        const run = (step: Step) => {
          switch (step.do) {
            case 'send': {
              if (source.isWaiting) return
              const chunk = Buffer.alloc(step.bytes, sent.length)
              sent.push(chunk)
              source.send(chunk)
              break
            }
            case 'join':
              join(step.roomFor, (left) => {
                const opened = recording.open(left)
                return opened === null || Buffer.isBuffer(opened.body) ? null : opened.body
              })
              break
            case 'drain':
              drain(readers[step.who])
              break
            case 'cancel': {
              const reader = readers[step.who]
              if (reader === undefined) return
              reader.isCancelled = true
              reader.body.cancel()
              break
            }
            case 'stay':
              stays++
              recording.stay(() => settled++)
              break
            default:
              step satisfies never
          }
        }
        const drainAll = () => {
          for (let round = 0; round < 64; round++) for (const reader of readers) drain(reader)
        }
        for (const step of history) run(step)
        drainAll()
        // Whoever has room gets more.
        const isWanted = readers.some(({ isCancelled }) => !isCancelled)
        expect(source.isWaiting && isWanted).toBe(false)
        source[ending]()
        drainAll()

        const whole = Buffer.concat(sent)
        const outcome = ending === 'end' ? 'whole' : 'broken'
        for (const { sink, isCancelled, left } of readers) {
          const got = Buffer.concat(sink.chunks)
          expect(got.equals(whole.subarray(0, got.length))).toBe(true)
          expect(sink.outcome === 'whole' ? got.length : whole.length).toBe(whole.length)
          expect(isCancelled ? outcome : sink.outcome).toBe(outcome)
          expect(left).toBe(1)
        }
        expect(owner.heldBytes).toBe(0)
        expect(settled).toBe(stays)
        const kept = ending === 'end' ? whole : null
        expect(owner.verdict).toEqual(whole.length > maxBytes ? 'too-large' : kept)
      }),
      { numRuns: 120 },
    )
  })
})
