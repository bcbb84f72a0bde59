// What takes stored responses away before their time: a purge by an operator, an unsafe request that succeeded (RFC 9111
// §4.4), and the tags that its route purges. All of them reach what is being fetched at that moment as well: such an
// answer may be from before the change, so it is not stored, and nobody joins it any more, soft as the purge may be.
//
// However much there is to remove, no request waits more than SLICE_MS for it: the work goes on in slices, one in a turn
// of the event loop, purges taking turns. What is stored meanwhile was asked for after the change and may stay or go.

import type { HeaderList, ReplyBody, RequestContext } from '../core/context.ts'
import { GatewayError } from '../core/errors.ts'
import { getHeader } from '../http/headers.ts'
import { isSafeMethod } from '../http/methods.ts'
import { normalizeTarget } from '../http/target.ts'
import { saysNothingDone } from './answer-rule.ts'
import type { CacheEntry } from './entry.ts'
import { pathOfKey, urlOf, urlTag } from './key.ts'
import { type PurgeRule, afterPurge, compileKeyTest } from './purge-rule.ts'
import type { Reason } from './reasons.ts'
import type { SharedCache } from './shared.ts'
import { type QueryRule, keySpellings } from './query-key.ts'
import { type TagRule, noTags } from './tags.ts'

const SLICE_MS = 10
/** Steps between two looks at the clock, some 50 us. */
const STEPS = 64

/** Why requests of GraphQL are not looked up that have changed something, or may have. */
const MAY_CHANGE: ReadonlySet<string> = new Set<Reason>([
  'mutation',
  'unclear-graphql',
  'body-too-large',
  'body-encoded',
  'body-not-json',
  'unsafe-json',
])

/** What an answer makes out of date, as a function for one route; null: nothing. body: of the answer. */
export type Invalidation = (
  ctx: RequestContext,
  status: number,
  headers: HeaderList,
  body: ReplyBody,
) => PurgeRule | null

/** methods: which its cache answers. purges: null: the route does not say. */
export function compileInvalidation(
  methods: ReadonlySet<string>,
  isGraphql: boolean,
  purges: TagRule | null,
  queries: readonly QueryRule[],
): Invalidation {
  return (ctx, status, headers, body) => {
    // A method that the cache answers has been declared safe: the same request has the same answer, and changes nothing.
    const isDeclared = methods.has(ctx.method)
    if (isDeclared && !(isGraphql && mayHaveChanged(ctx, headers, body))) return null
    const rule = invalidation(ctx, status, headers, purges ?? noTags, queries)
    if (!isDeclared || rule === null || purges === null) return rule
    // All operations of GraphQL have one URL, so that what the route names is all that goes.
    return rule.tags === undefined ? null : { tags: rule.tags }
  }
}

function mayHaveChanged(ctx: RequestContext, headers: HeaderList, body: ReplyBody): boolean {
  if (ctx.cache !== 'bypass' || ctx.cacheReason === null || !MAY_CHANGE.has(ctx.cacheReason)) return false
  return !Buffer.isBuffer(body) || !saysNothingDone(headers, body)
}

/** Carries out a rule, in memory and on disk; resolves with how many variants were removed, or became stale where it is
 *  soft: those of memory or those on disk, whichever are more. */
export async function purge(shared: SharedCache, rule: PurgeRule): Promise<number> {
  const { store, tiers, flights } = shared
  const { urls = [], tags = [] } = rule
  const test = compileKeyTest(rule)
  const change = {}
  if (test !== null) flights.spoil(test, change)
  if (tags.length > 0) flights.spoilTags(new Set(tags), change)
  // Which tags it carries is known of no read that is under way.
  tiers.spoil(tags.length > 0 || test === null ? () => true : test)
  // Before anything is awaited: what is written to them from now on is from after the purge.
  const beyond = tiers.purge(rule)

  const nowMs = shared.now()
  const take = (entry: CacheEntry): number => {
    const left = afterPurge(entry, rule.soft === true, nowMs)
    if (left === entry) return 0
    return (left === null ? store.remove(entry) : store.replace(entry, left)) ? 1 : 0
  }
  const takeKey = (key: string): number => {
    if (rule.soft !== true) return store.delete(key)
    let taken = 0
    for (const entry of store.get(key) ?? []) taken += take(entry)
    return taken
  }

  let taken = 0
  const takeTagged = async (tag: string): Promise<number> => {
    const entries = store.tagged(tag)
    return entries === null ? 0 : sweep(shared, entries, entries.size, take)
  }
  for (const url of urls) {
    for (const key of keysOf(url)) {
      taken += takeKey(key)
      taken += await takeTagged(urlTag(key))
    }
  }
  const isWalk = rule.all === true || rule.prefix !== undefined || rule.pattern !== undefined || urls.some(isPath)
  if (test !== null && isWalk) {
    taken += await sweep(shared, store.keys(), store.entries, (key) => (test(key) ? takeKey(key) : 0))
  }
  for (const tag of tags) taken += await takeTagged(tag)
  // Most of what is in memory is on disk, too.
  return Math.max(taken, await beyond)
}

/** Of a rule's URL, where they are known without a walk over all keys; what has longer ones is listed under these. */
function keysOf(url: string): readonly string[] {
  if (url.startsWith('//')) return [`http:${url}`, `https:${url}`]
  return isPath(url) ? [] : [url]
}

/** Of a rule's URL: on every host. */
const isPath = (url: string): boolean => url.startsWith('/') && !url.startsWith('//')

/** What a request's answer makes out of date; null where it does nothing of the kind. After an unsafe request that
 *  succeeded these are its URL's responses, those of the URLs that the answer names, as far as they are of the same
 *  origin (of others it says nothing), and what carries the tags that its route purges. queries: the spellings of queries
 *  that routes have in their keys. */
export function invalidation(
  ctx: RequestContext,
  status: number,
  headers: HeaderList,
  purges: TagRule = noTags,
  queries: readonly QueryRule[] = [],
): PurgeRule | null {
  if (status < 200 || status >= 400 || isSafeMethod(ctx.method)) return null
  const url = urlOf(ctx)
  const named = ['location', 'content-location'].map((name) => urlNamedBy(getHeader(headers, name), url))
  const urls = [
    ...new Set([url, ...named.filter((each) => each !== null)].flatMap((each) => keySpellings(each, queries))),
  ]
  // A tag that cannot be kept is on no entry.
  const tags = purges(ctx.params) ?? []
  return tags.length === 0 ? { urls } : { urls, tags }
}

/** Calls `remove` with what there is, slice by slice, and sums up what it answers. atMost: how many there are now; what
 *  comes later is not of interest, unless something that was there has moved behind it meanwhile. */
export async function sweep<T>(
  { turns, store }: Pick<SharedCache, 'turns' | 'store'>,
  all: Iterable<T>,
  atMost: number,
  remove: (one: T) => number,
): Promise<number> {
  /** Of the store's moves, those that are not of others: it ends behind what they have moved as well. */
  let ownMoves = store.moves
  let removed = 0
  let steps = 0
  let endsAtMs = performance.now() + SLICE_MS
  for (const one of all) {
    if (steps++ >= atMost && store.moves === ownMoves) break
    const moves = store.moves
    removed += remove(one)
    ownMoves += store.moves - moves
    if (steps % STEPS !== 0 || performance.now() < endsAtMs) continue
    await turns.next()
    endsAtMs = performance.now() + SLICE_MS
  }
  return removed
}

/** A URL that an answer names, absolute or relative to its own, as keys spell it; null for one of another origin. */
export function urlNamedBy(reference: string | null, own: string): string | null {
  const url = reference === null ? null : URL.parse(reference, own)
  if (url === null || url.origin !== new URL(own).origin) return null
  const target = normalizeTarget(url.pathname + url.search)
  return target instanceof GatewayError ? null : own.slice(0, -pathOfKey(own).length) + target.path + target.query
}
