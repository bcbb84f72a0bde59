// One fetch for all instances: who would lead a flight takes a lease first (lease.ts). Who does not get it waits, looks at
// what has come from the tier that all share, and begins again, for as long as a fetch may take and its lease is renewed. In
// this instance one request does so for all that meet at its place (bids.ts).

import type { RequestContext } from '../core/context.ts'
import { unlessGone } from './bids.ts'
import type { Flight } from './collapse.ts'
import type { StoredResponse } from './entry.ts'
import { claimsOf } from './key.ts'
import type { Lease, LeaseOutcome, Leases } from './lease.ts'
import type { Places } from './places.ts'
import type { Reason } from './reasons.ts'
import type { SharedCache } from './shared.ts'

/** How long others wait for an answer to be in Redis after it is whole. */
const MAX_WRITE_MS = 1000

/** The right to open a flight. */
export interface Turn {
  /** Called where the flight is open, or will not be; flight: null then. */
  begin(flight: Flight | null): void
}

export interface OneFetch {
  /** For a request that has bid for its place, and would lead a flight and let others join. sinceMs: when it began to
   *  wait (performance.now()). 'again': something has come or changed, look again; the time may be up then. Never rejects. */
  turn(ctx: RequestContext, key: string, sinceMs: number): Promise<Turn | 'again'>
  /** The same for a refresh that nobody waits for; null where another sees to it. */
  turnOrNothing(ctx: RequestContext, key: string): Promise<Turn | null>
}

/** What is stored for a request. */
type Find = (ctx: RequestContext, key: string, nowMs: number) => StoredResponse | Reason

/** longestFetchMs: how long a request waits for others, all its turns together. */
export function compileOneFetch(
  shared: SharedCache,
  leases: Leases,
  places: Places,
  epoch: string,
  find: Find,
  longestFetchMs: number,
): OneFetch {
  const { flights, tiers, now } = shared
  const leaseOf = (place: string): string => `${epoch}\n${place}`
  leases.prepare()

  const isFresh = (ctx: RequestContext, key: string): boolean => {
    const found = find(ctx, key, now())
    return typeof found === 'object' && found.freshUntilMs > now()
  }

  async function look(ctx: RequestContext, key: string, place: string): Promise<void> {
    const by = { headers: ctx.headers, claims: claimsOf(ctx) }
    await tiers.read(place, key, epoch, by)?.done
  }

  function turnWith(ctx: RequestContext, key: string, lease: Lease | null): Turn {
    const memoryKey = places.memoryKey(ctx, key)
    const end = async ({ isSpoiled }: Flight): Promise<void> => {
      let outcome: LeaseOutcome = 'nothing'
      if (flights.unshareable.has(memoryKey, now())) outcome = 'unshareable'
      else if (!isSpoiled && isFresh(ctx, key)) {
        outcome = 'stored'
        await inTime(tiers.written())
      }
      await lease?.end(outcome)
    }
    return {
      begin(flight) {
        if (lease === null) return
        if (flight === null) void lease.end('nothing')
        else flight.whenOver(() => void end(flight))
      },
    }
  }

  async function turn(ctx: RequestContext, key: string, sinceMs: number): Promise<Turn | 'again'> {
    const place = places.of(ctx, key)
    while (performance.now() - sinceMs <= longestFetchMs) {
      const lease = await leases.take(leaseOf(place))
      if (lease === null) break
      if (!('ended' in lease)) return (await turnUnlessFresh(ctx, key, place, lease)) ?? 'again'
      const outcome = await unlessGone(ctx, lease.ended)
      if (outcome === 'unshareable') flights.unshareable.add(places.memoryKey(ctx, key), now())
      else await look(ctx, key, place)
      // What was stored and is not there does not fit through Redis: all who wait would fetch it one by one.
      if (outcome === 'stored' && !isFresh(ctx, key)) break
      // Without a word, its owner may go on as well as not.
      const mayGoOn = outcome === null && !isFresh(ctx, key) && places.of(ctx, key) === place
      if (!mayGoOn) return 'again'
    }
    return turnWith(ctx, key, null)
  }

  /** Whoever had the lease before may have been through just when this request had looked in vain. */
  async function turnUnlessFresh(ctx: RequestContext, key: string, place: string, lease: Lease): Promise<Turn | null> {
    await look(ctx, key, place)
    if (!isFresh(ctx, key)) return turnWith(ctx, key, lease)
    void lease.end('stored')
    return null
  }

  async function turnOrNothing(ctx: RequestContext, key: string): Promise<Turn | null> {
    const place = places.of(ctx, key)
    const lease = await leases.take(leaseOf(place))
    if (lease !== null && 'ended' in lease) return null
    return lease === null ? turnWith(ctx, key, null) : turnUnlessFresh(ctx, key, place, lease)
  }

  return { turn, turnOrNothing }
}

async function inTime(promise: Promise<unknown>): Promise<void> {
  let timer: NodeJS.Timeout | undefined
  const late = new Promise((resolve) => {
    timer = setTimeout(resolve, MAX_WRITE_MS)
  })
  await Promise.race([promise, late])
  clearTimeout(timer)
}
