// What takes stored responses away before their time: a purge by an operator, an unsafe request that succeeded (RFC 9111
// §4.4), and the tags that its route purges. All of them reach what is being fetched at that moment as well: such an
// answer may be from before the change, so it is not stored, and nobody joins it any more.
//
// However much there is to remove, no request waits more than SLICE_MS for it: the work goes on in slices, one in a turn
// of the event loop, purges taking turns. What is stored meanwhile was asked for after the change and may stay or go.

import type { HeaderList, RequestContext } from '../core/context.ts'
import { GatewayError } from '../core/errors.ts'
import { getHeader } from '../http/headers.ts'
import { isSafeMethod } from '../http/methods.ts'
import { normalizeTarget } from '../http/target.ts'
import { cacheKey, pathOfKey } from './key.ts'
import type { SharedCache } from './shared.ts'
import { type TagRule, noTags } from './tags.ts'

const SLICE_MS = 10
/** Steps between two looks at the clock, some 50 us. */
const STEPS = 64

/** Removes all variants of a key; answers how many. */
export function purgeKey({ store, flights }: SharedCache, key: string): number {
  flights.spoil((other) => other === key)
  return store.delete(key)
}

/** Removes every key that `matches` accepts; resolves with how many variants that were. Walks all keys. */
export function purgeWhere(shared: SharedCache, matches: (key: string) => boolean): Promise<number> {
  const { store, flights } = shared
  flights.spoil(matches)
  return sweep(shared, store.keys(), store.entries, (key) => (matches(key) ? store.delete(key) : 0))
}

/** Removes every variant that carries one of these tags; resolves with how many. */
export async function purgeTags(shared: SharedCache, tags: readonly string[]): Promise<number> {
  const { store, flights } = shared
  flights.spoilTags(new Set(tags))
  let purged = 0
  for (const tag of tags) {
    const entries = store.tagged(tag)
    if (entries !== null) purged += await sweep(shared, entries, entries.size, (entry) => (store.remove(entry) ? 1 : 0))
  }
  return purged
}

/** Called with what a request was answered: after an unsafe one that succeeded, its URL's responses are out of date, and
 *  those of the URLs that the answer names, as far as they are of the same origin (of others it says nothing), and what
 *  carries the tags that its route purges. Resolves when all of that is gone. */
export function invalidate(
  shared: SharedCache,
  ctx: RequestContext,
  status: number,
  headers: HeaderList,
  purges: TagRule = noTags,
): Promise<unknown> | null {
  if (status < 200 || status >= 400 || isSafeMethod(ctx.method)) return null
  const key = cacheKey(ctx)
  purgeKey(shared, key)
  for (const name of ['location', 'content-location']) {
    const named = keyNamedBy(getHeader(headers, name), key)
    if (named !== null && named !== key) purgeKey(shared, named)
  }
  // A tag that cannot be kept is on no entry.
  const tags = purges(ctx.params) ?? []
  return tags.length === 0 ? null : purgeTags(shared, tags)
}

/** Calls `remove` with what there is, slice by slice, and sums up what it answers. atMost: how many there are now; what
 *  comes later is not of interest. */
export async function sweep<T>(
  { turns }: SharedCache,
  all: Iterable<T>,
  atMost: number,
  remove: (one: T) => number,
): Promise<number> {
  let removed = 0
  let steps = 0
  let endsAtMs = performance.now() + SLICE_MS
  for (const one of all) {
    if (steps++ === atMost) break
    removed += remove(one)
    if (steps % STEPS !== 0 || performance.now() < endsAtMs) continue
    await turns.next()
    endsAtMs = performance.now() + SLICE_MS
  }
  return removed
}

/** The key of a URL that an answer names, absolute or relative to its own; null for one of another origin. */
function keyNamedBy(reference: string | null, key: string): string | null {
  const url = reference === null ? null : URL.parse(reference, key)
  if (url === null || url.origin !== new URL(key).origin) return null
  const target = normalizeTarget(url.pathname + url.search)
  return target instanceof GatewayError ? null : key.slice(0, -pathOfKey(key).length) + target.path + target.query
}
