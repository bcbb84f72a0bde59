// Who is about to fetch what others want as well, and has still to ask whether it may: the limits on misses, and the lease
// that instances share. There is one at each place. Who comes meanwhile waits until that one has gone on, and looks
// again: mostly there is a flight to join then, for which nobody but its leader is charged; where there is none (the leader
// was refused, or went), the next claims the place, in the order in which they came.

import type { RequestContext } from '../core/context.ts'

/** The right to ask first. */
export interface Claim {
  /** Lets the others go on; further calls do nothing. */
  end(): void
}

/** What it holds is bounded by the requests that are open. */
export interface Claims {
  /** Claims a place; where another has it, answers a promise that resolves when that one has gone on. */
  take(place: string): Claim | Promise<void>
  /** Places that are claimed. */
  readonly size: number
}

export function createClaims(): Claims {
  const taken = new Map<string, Promise<void>>()
  return {
    take(place) {
      const other = taken.get(place)
      if (other !== undefined) return other
      const { promise, resolve } = Promise.withResolvers<void>()
      taken.set(place, promise)
      return {
        end() {
          if (taken.get(place) === promise) taken.delete(place)
          resolve()
        },
      }
    },
    get size() {
      return taken.size
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
