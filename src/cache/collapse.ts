// One fetch per key. A flight is a fetch that several requests wait for: it belongs to none of them, and is given up
// only when the last has gone. It lands in one of four ways: with an answer to read along, with nothing to share (then
// each asks for itself), with a failure that all of them get, so that a dead origin is asked once, or with an error that
// the origin answered. That error is the leader's alone (RFC 9111 §4: what may not be stored is for nobody else, and it may
// be the fault of the leader's own request), but to let all go ahead would be a run on an origin that is sick: they wait
// for one of them again, and when that gets an error too, they are told that the upstream is failing.
//
//   open -> landed (its answer streams, others may still join) -> closed: stored, passed on, failed or deserted
//
// Where its answer may be stored, one that all have left may go on for a while (detached.ts). It stays what it was: purges
// reach it, and who comes joins it. What its leader holds of limits on what is at the upstream is held until it is closed,
// whoever has gone.
//
// A key whose answer could not be shared is remembered, so that nobody queues on it again in vain.

import type { OriginFetch, ReplyBody, RequestContext } from '../core/context.ts'
import { GatewayError } from '../core/errors.ts'
import type { Finishing, Stay } from './detached.ts'
import type { StoredHead, StoredResponse } from './entry.ts'
import { type KeyHash, createKeyHash } from './key-hash.ts'

/** How long an unshareable key is remembered, and how much memory all of them may take. */
const UNSHAREABLE_MS = 120_000
const MAX_UNSHAREABLE_BYTES = 2 * 1024 ** 2
/** Who waits for one head, the leader among them; whoever comes then is turned away. To let those go to the origin would be
 *  the run on it that waiting is there to prevent. */
const MAX_WAITING = 1000
/** Tags purged while one fetch is under way; with more, its answer is not stored. */
const MAX_PURGED_TAGS = 1000

/** An answer that a flight's waiters may read along. */
export interface SharedAnswer {
  readonly head: StoredHead
  /** A view of the body from its beginning; left is called once, when that reader is through. Null: too late to join. */
  open(left: () => void): { readonly body: ReplyBody } | null
}

/** A body on its way into the cache. */
export interface Recorded {
  readonly isOver: boolean
  /** See Recording. */
  stay(left: () => void): void
}

export interface Flight {
  readonly key: string
  /** By which a purge finds it; at first those that the route gives. */
  readonly tags: readonly string[]
  /** Place in the purge log when it began. */
  readonly purgeSeq: number
  /** Answers of another epoch are not for those who join. */
  readonly epoch: string
  /** null: nothing to share, each asks for itself. Rejects with the GatewayError that every waiter gets. */
  readonly landed: Promise<SharedAnswer | null>
  /** The answer, once it has landed with one. */
  readonly answer: SharedAnswer | null
  /** True when what it fetches was changed meanwhile, or when nobody wants it any more: its answer must not be stored. */
  readonly isSpoiled: boolean
  /** True when it was changed more than once. */
  readonly isSpoiledTwice: boolean
  /** True when its answer was an error of the moment: who has waited had better not go ahead alone. */
  readonly isSick: boolean
  /** True while nobody else may wait for it. */
  readonly isFull: boolean
  /** Somebody waits. The answer is called when that one has all or has gone; with the last one the fetch is given up,
   *  where it still runs and does not go on. Further calls do nothing. leader: whose request it has been made of. */
  join(leader?: RequestContext): () => void
  /** It may go on when all have left. */
  mayGoOn(finishing: Finishing, leader: RequestContext): void
  /** Its answer is being recorded; null: and will not be stored. */
  recordedBy(recording: Recorded | null): void
  /** Its answer has been stored. fetchMs: how long that took; null where it says nothing of other fetches. */
  stored(entry: StoredResponse, fetchMs: number | null): void
  /** All tags, known with the answer's head. False when one was purged since the flight began: the answer may be from
   *  before the change, so it is for nobody who came after. */
  landWith(tags: readonly string[]): boolean
  share(answer: SharedAnswer): void
  /** Its answer is the leader's alone. isSick: it is an error of the moment. */
  pass(isSick?: boolean): void
  /** The same, for an answer that is being stored: purges still reach it. */
  keepToLeader(): void
  fail(error: unknown): void
  /** Nobody can join any more. */
  close(): void
  /** Calls the listener as soon as nobody who comes will get its answer: it is closed, or what it fetches was changed. Once,
   *  and one listener alone. */
  whenOver(listener: () => void): void
}

export interface Flights {
  /** The flight that waits for others at a place. */
  at(place: string): Flight | undefined
  /** Starts a flight. place: where others find it, in place of the one that was there; null: nobody shall join. */
  open(
    key: string,
    epoch: string,
    place: string | null,
    fetch: OriginFetch,
    tags?: readonly string[],
    purgeSeq?: number,
  ): Flight
  /** Keeps what is being fetched for these keys from being joined and stored. change: stands for whatever has changed it. */
  spoil(matches: (key: string) => boolean, change: object): void
  /** The same for what carries one of these tags, or will turn out to. */
  spoilTags(tags: ReadonlySet<string>, change: object): void
  readonly unshareable: KeyMemory
  /** Flights that are not closed. */
  readonly size: number
}

export const createFlights = (hash: KeyHash = createKeyHash()): Flights => new OpenFlights(hash)

/** Flights come and go by the thousand, and V8 keeps what stood in the table of a Map or Set when that was made anew for as
 *  long as the old table is there: until the next full collection, where it has grown old itself. So flights stand in a list,
 *  and the map knows them by number: 1.7 KB of a stored miss outlive a scavenge in place of 6.8 (its entry is among them). */
class OpenFlights implements Flights {
  readonly unshareable = createKeyMemory(UNSHAREABLE_MS, MAX_UNSHAREABLE_BYTES)
  size = 0
  readonly #byNumber: (OpenFlight | null)[] = []
  readonly #freeNumbers: number[] = []
  readonly #hash: KeyHash
  /** By the hash of their places. Of two whose places have the same one, the later is found. */
  readonly #joinable = new Map<number, number>()

  constructor(hash: KeyHash) {
    this.#hash = hash
  }

  at(place: string): Flight | undefined {
    if (this.#joinable.size === 0) return undefined
    const number = this.#joinable.get(this.#hash.of(place))
    const flight = number === undefined ? null : this.#byNumber[number]
    return flight?.place === place ? flight : undefined
  }

  open(
    key: string,
    epoch: string,
    place: string | null,
    fetch: OriginFetch,
    tags: readonly string[] = [],
    purgeSeq = 0,
  ): Flight {
    const number = this.#freeNumbers.pop() ?? this.#byNumber.length
    const placeHash = place === null ? 0 : this.#hash.of(place)
    const flight = new OpenFlight(this, number, key, epoch, place, placeHash, fetch, tags, purgeSeq)
    this.#byNumber[number] = flight
    this.size++
    if (place !== null) this.#joinable.set(placeHash, number)
    return flight
  }

  spoil(matches: (key: string) => boolean, change: object): void {
    for (const flight of this.#byNumber) {
      if (flight === null || !matches(flight.key)) continue
      flight.spoil(change)
      this.hide(flight)
    }
  }

  spoilTags(tags: ReadonlySet<string>, change: object): void {
    for (const flight of this.#byNumber) if (flight?.notePurge(tags, change) === true) this.hide(flight)
  }

  /** Nobody finds it any more. */
  hide({ place, placeHash, number }: OpenFlight): void {
    if (place !== null && this.#joinable.get(placeHash) === number) this.#joinable.delete(placeHash)
  }

  /** Once: its number is another's from then on. */
  remove(flight: OpenFlight): void {
    this.hide(flight)
    this.#byNumber[flight.number] = null
    this.#freeNumbers.push(flight.number)
    this.size--
  }
}

type Landing = PromiseWithResolvers<SharedAnswer | null>

class OpenFlight implements Flight {
  readonly number: number
  readonly key: string
  readonly epoch: string
  readonly place: string | null
  readonly placeHash: number
  tags: readonly string[]
  readonly purgeSeq: number
  answer: SharedAnswer | null = null
  isSpoiled = false
  isSpoiledTwice = false
  isSick = false
  readonly #flights: OpenFlights
  readonly #fetch: OriginFetch
  #isOpen = true
  #whenOver: (() => void) | null = null
  #isLanded = false
  #failure: { readonly error: unknown } | null = null
  /** Null before anybody has waited. */
  #landing: Landing | null = null
  #present = 0
  #knowsTags = false
  /** Tags purged before the answer's own were known, and by which change. */
  #purged: Map<string, object> | null = null
  #change: object | null = null
  #finishing: Finishing | null = null
  #sinceMs = 0
  #leader: RequestContext | null = null
  #recorded: Recorded | null = null
  /** While it goes on with nobody there. */
  #stay: Stay | null = null
  /** Lets go of what its leader holds. */
  #release: (() => void) | null = null

  constructor(
    flights: OpenFlights,
    number: number,
    key: string,
    epoch: string,
    place: string | null,
    placeHash: number,
    fetch: OriginFetch,
    tags: readonly string[],
    purgeSeq: number,
  ) {
    this.#flights = flights
    this.number = number
    this.key = key
    this.epoch = epoch
    this.place = place
    this.placeHash = placeHash
    this.tags = tags
    this.purgeSeq = purgeSeq
    this.#fetch = fetch
  }

  get landed(): Promise<SharedAnswer | null> {
    if (this.#landing === null) {
      this.#landing = Promise.withResolvers()
      // Whoever waits sees a failure; without anybody waiting it is nobody's.
      this.#landing.promise.catch(() => {})
      if (this.#isLanded) this.#tell(this.#landing)
    }
    return this.#landing.promise
  }

  get isFull(): boolean {
    return this.answer === null && this.#present >= MAX_WAITING
  }

  join(leader?: RequestContext): () => void {
    this.#present++
    this.#stay?.joined()
    this.#stay = null
    let isPresent = true
    return () => {
      if (!isPresent) return
      isPresent = false
      if (--this.#present === 0 && !this.#goOn()) return this.#giveUp()
      if (leader !== undefined && this.#isOpen) this.#release = leader.linger()
    }
  }

  mayGoOn(finishing: Finishing, leader: RequestContext): void {
    this.#finishing = finishing
    this.#leader = leader
    this.#sinceMs = finishing.now()
  }

  recordedBy(recording: Recorded | null): void {
    this.#recorded = recording
    if (recording === null) this.#finishing = null
    if (this.#stay === null) return
    if (recording === null) this.#giveUp()
    else recording.stay(() => this.#onRecorded())
  }

  stored(entry: StoredResponse, fetchMs: number | null): void {
    if (fetchMs !== null) this.#finishing?.note(fetchMs)
    this.#stay?.stored(entry)
  }

  /** True where it goes on with nobody there. What may not be stored, or is whole, is closed by now. */
  #goOn(): boolean {
    const finishing = this.#finishing
    if (finishing === null || !this.#isOpen || this.isSpoiled || !this.#fetch.isSent) return false
    if (this.#recorded?.isOver === true) return false
    const isDear = this.#leader?.hasLastSlot === true
    this.#stay = finishing.begin(this.#recorded !== null, this.#sinceMs, isDear, () => this.#giveUp())
    if (this.#stay !== null) this.#recorded?.stay(() => this.#onRecorded())
    return this.#stay !== null
  }

  /** Nothing more comes of its body. Where that has been stored, nobody stays any more. */
  #onRecorded(): void {
    if (this.#stay !== null) this.#giveUp()
  }

  #giveUp(): void {
    // No purge reaches it any more, and its answer may be on its way all the same.
    this.isSpoiled = true
    this.close()
    this.#fetch.abort(DESERTED)
  }

  landWith(tags: readonly string[]): boolean {
    this.tags = tags
    this.#knowsTags = true
    const purged = this.#purged
    this.#purged = null
    if (purged === null) return true
    const changes = tags.flatMap((tag) => purged.get(tag) ?? [])
    for (const change of changes) this.spoil(change)
    return changes.length === 0
  }

  spoil(change: object): void {
    this.isSpoiledTwice ||= this.isSpoiled && this.#change !== change
    this.isSpoiled = true
    this.#change = change
    if (this.#stay !== null) this.#giveUp()
    this.#over()
  }

  /** True when it carries one of these tags, or when too many have been purged to remember them for it. */
  notePurge(tags: ReadonlySet<string>, change: object): boolean {
    if (this.tags.some((tag) => tags.has(tag))) this.spoil(change)
    else if (!this.#knowsTags) {
      const purged = (this.#purged ??= new Map())
      if (purged.size > MAX_PURGED_TAGS) return this.isSpoiled
      for (const tag of tags) purged.set(tag, (purged.get(tag) ?? change) === change ? change : SEVERAL)
      if (purged.size > MAX_PURGED_TAGS) this.spoil(SEVERAL)
    }
    return this.isSpoiled
  }

  close(): void {
    if (!this.#isOpen) return
    this.#isOpen = false
    this.#flights.remove(this)
    this.#release?.()
    this.#over()
    if (this.#stay === null) return
    this.#stay.end()
    this.#stay = null
    // Nobody else will let go of it.
    this.#fetch.abort(DESERTED)
  }

  whenOver(listener: () => void): void {
    this.#whenOver = listener
  }

  #over(): void {
    const listener = this.#whenOver
    this.#whenOver = null
    listener?.()
  }

  share(answer: SharedAnswer): void {
    this.answer = answer
    this.#land()
  }

  pass(isSick = false): void {
    this.isSick = isSick
    this.close()
    this.#land()
  }

  keepToLeader(): void {
    if (this.#isOpen) this.#flights.hide(this)
    this.#land()
  }

  fail(error: unknown): void {
    this.close()
    if (!this.#isLanded) this.#failure = { error }
    this.#land()
  }

  /** The first way in which it lands counts. */
  #land(): void {
    if (this.#isLanded) return
    this.#isLanded = true
    if (this.#landing !== null) this.#tell(this.#landing)
  }

  #tell({ resolve, reject }: Landing): void {
    if (this.#failure === null) resolve(this.answer)
    else reject(this.#failure.error)
  }
}

const SEVERAL = {}
const DESERTED = new GatewayError('client_gone', 'Every client of this fetch has gone.')

/** Keys that are remembered for a while, the latest the longest. nowMs: any clock, the same in all calls. */
export interface KeyMemory {
  add(key: string, nowMs: number): void
  has(key: string, nowMs: number): boolean
  delete(key: string): void
}

/** What a key takes beside its text. */
const KEY_OVERHEAD_BYTES = 100

export function createKeyMemory(forMs: number, maxBytes: number): KeyMemory {
  const untilMs = new Map<string, number>()
  let bytes = 0

  function forget(key: string): void {
    // The key of a miss is new to a Map, and dear (key-hash.ts); mostly nothing is remembered.
    if (untilMs.size > 0 && untilMs.delete(key)) bytes -= key.length + KEY_OVERHEAD_BYTES
  }

  return {
    add(key, nowMs) {
      forget(key)
      untilMs.set(key, nowMs + forMs)
      bytes += key.length + KEY_OVERHEAD_BYTES
      for (const oldest of untilMs.keys()) {
        if (bytes <= maxBytes) return
        forget(oldest)
      }
    },
    has(key, nowMs) {
      const until = untilMs.size === 0 ? undefined : untilMs.get(key)
      if (until === undefined) return false
      // What seems to have longer than it got is from before a clock was set back.
      if (until > nowMs && until - nowMs <= forMs) return true
      forget(key)
      return false
    },
    delete: forget,
  }
}
