// What takes stored responses away before their time: a purge by an operator, and an unsafe request that succeeded
// (RFC 9111 §4.4). Both reach what is being fetched at that moment as well: such an answer may be from before the
// change, so it is not stored, and nobody joins it any more.

import type { RequestContext } from '../core/context.ts'
import { isSafeMethod } from '../http/methods.ts'
import { cacheKey } from './key.ts'
import type { SharedCache } from './shared.ts'

/** Removes all variants of a key; answers how many. */
export function purgeKey({ store, flights }: SharedCache, key: string): number {
  flights.spoil((other) => other === key)
  return store.delete(key)
}

/** Removes every key that `matches` accepts; answers how many variants. Walks all keys. */
export function purgeWhere({ store, flights }: SharedCache, matches: (key: string) => boolean): number {
  flights.spoil(matches)
  return store.deleteWhere(matches)
}

/** Called with what a request was answered: after an unsafe one that succeeded, its URL's responses are out of date. */
export function invalidate(shared: SharedCache, ctx: RequestContext, status: number): void {
  if (status >= 200 && status < 400 && !isSafeMethod(ctx.method)) purgeKey(shared, cacheKey(ctx))
}
