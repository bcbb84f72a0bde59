// Who is about to fetch what others want as well, and has still to wait for leave: of the limits on misses, or for the lease
// that instances share. There is one at each place. Who comes meanwhile waits until that one has gone on, and looks
// again: mostly there is a flight to join then, for which nobody but its leader is charged; where there is none (the leader
// was refused, or went), the next bids for the place, in the order in which they came.

import type { RequestContext } from '../core/context.ts'

/** The right to ask first. */
export interface Bid {
  /** Lets the others go on. */
  end(): void
}

/** What it holds is bounded by the requests that are open. */
export interface Bids {
  /** Resolves when who has bid for a place has gone on; null: nobody has. */
  at(place: string): Promise<void> | null
  /** For a place that nobody has bid for. */
  open(place: string): Bid
  /** Places that are bid for. */
  readonly size: number
}

export function createBids(): Bids {
  const ended = new Map<string, Promise<void>>()
  return {
    at: (place) => ended.get(place) ?? null,
    open(place) {
      const { promise, resolve } = Promise.withResolvers<void>()
      ended.set(place, promise)
      return {
        end() {
          ended.delete(place)
          resolve()
        },
      }
    },
    get size() {
      return ended.size
    },
  }
}

/** What a promise resolves with; undefined as soon as the client goes. */
export async function unlessGone<T>(ctx: RequestContext, promise: Promise<T>): Promise<T | undefined> {
  const gone = Promise.withResolvers<undefined>()
  ctx.whenAborted(() => gone.resolve(undefined))
  const first = await Promise.race([promise, gone.promise])
  ctx.whenAborted(null)
  return first
}
