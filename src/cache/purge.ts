// What takes stored responses away before their time: a purge by an operator, and an unsafe request that succeeded
// (RFC 9111 §4.4). Both reach what is being fetched at that moment as well: such an answer may be from before the
// change, so it is not stored, and nobody joins it any more.

import type { HeaderList, RequestContext } from '../core/context.ts'
import { GatewayError } from '../core/errors.ts'
import { getHeader } from '../http/headers.ts'
import { isSafeMethod } from '../http/methods.ts'
import { normalizeTarget } from '../http/target.ts'
import { cacheKey, pathOfKey } from './key.ts'
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

/** Called with what a request was answered: after an unsafe one that succeeded, its URL's responses are out of date, and
 *  those of the URLs that the answer names, as far as they are of the same origin: of others it says nothing. */
export function invalidate(shared: SharedCache, ctx: RequestContext, status: number, headers: HeaderList): void {
  if (status < 200 || status >= 400 || isSafeMethod(ctx.method)) return
  const key = cacheKey(ctx)
  purgeKey(shared, key)
  for (const name of ['location', 'content-location']) {
    const named = keyNamedBy(getHeader(headers, name), key)
    if (named !== null && named !== key) purgeKey(shared, named)
  }
}

/** The key of a URL that an answer names, absolute or relative to its own; null for one of another origin. */
function keyNamedBy(reference: string | null, key: string): string | null {
  const url = reference === null ? null : URL.parse(reference, key)
  if (url === null || url.origin !== new URL(key).origin) return null
  const target = normalizeTarget(url.pathname + url.search)
  return target instanceof GatewayError ? null : key.slice(0, -pathOfKey(key).length) + target.path + target.query
}
