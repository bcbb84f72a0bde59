// Purging and looking into the cache as people ask for it: by URL, by its beginning, by a pattern, by tag. An absolute URL
// stands for both schemes, since TLS often ends before the gateway and what people know as https:// is stored as http://.
// What begins with `/` stands for every host.

import type { CacheEntry } from '../cache/entry.ts'
import { pathOfKey, urlOfKey, urlTag } from '../cache/key.ts'
import type { PurgeRule } from '../cache/purge-rule.ts'
import { sweep } from '../cache/purge.ts'
import { type QueryRule, keySpellings } from '../cache/query-key.ts'
import type { SharedCache } from '../cache/shared.ts'
import { wholeSeconds } from '../cache/status.ts'
import type { PurgeRequest, StoredEntries, StoredEntry } from '../core/control.ts'
import { GatewayError } from '../core/errors.ts'
import { lengthOf } from '../http/range.ts'
import { type NormalTarget, normalizeTarget } from '../http/target.ts'

/** Entries listed for one URL. */
const MAX_LISTED = 100
const SCHEMES = ['http', 'https'] as const

/** The rule for what a request names. queries: the spellings of queries that routes have in their keys, which nobody who
 *  asks has to know. Throws a GatewayError that tells the first text that is no URL. */
export function compilePurge(request: PurgeRequest, queries: readonly QueryRule[]): PurgeRule {
  const soft = request.soft === true ? { soft: request.soft } : {}
  if ('urls' in request) {
    return { urls: [...new Set(request.urls.flatMap((url) => keySpellings(spellUrl(url), queries)))], ...soft }
  }
  if ('tags' in request) return { tags: [...new Set(request.tags)], ...soft }
  if ('prefix' in request) return { prefix: spellUrl(request.prefix), ...soft }
  if ('pattern' in request) return { pattern: spellPattern(request.pattern), ...soft }
  return { all: true, ...soft }
}

/** What is stored under a URL, on every host where it is a path. queries: as in compilePurge. Rejects with a GatewayError
 *  where it is none. */
export async function storedEntries(
  cache: SharedCache,
  url: string,
  queries: readonly QueryRule[],
): Promise<StoredEntries> {
  const { store } = cache
  const { authority, path, query } = targetOf(url)
  const entries: StoredEntry[] = []
  let found = 0
  const list = (stored: Iterable<CacheEntry>) => {
    for (const entry of stored) if (found++ < MAX_LISTED) entries.push(describe(entry, cache.now()))
  }
  const spellings = keySpellings(path + query, queries)
  if (authority === null) {
    const named = new Set(spellings)
    await sweep(cache, store.keys(), store.entries, (key) => {
      if (named.has(pathOfKey(urlOfKey(key)))) list(store.get(key) ?? [])
      return 0
    })
  } else {
    for (const scheme of SCHEMES) {
      for (const spelling of spellings) {
        const own = `${scheme}://${authority}${spelling}`
        list(store.get(own) ?? [])
        list(store.tagged(urlTag(own)) ?? [])
      }
    }
  }
  return { entries, truncated: found > entries.length }
}

function describe(entry: CacheEntry, nowMs: number): StoredEntry {
  const { key, status, varyNames, varyValues, bornAtMs, freshUntilMs, tags, sizeBytes } = entry
  const forms = (entry.body === null ? null : entry.coded) ?? []
  return {
    url: urlOfKey(key),
    key: key.slice(urlOfKey(key).length + 1) || null,
    status,
    vary: Object.fromEntries(varyNames.map((name, i) => [name, varyValues[i] ?? null])),
    age_s: wholeSeconds(nowMs - bornAtMs),
    ttl_s: wholeSeconds(freshUntilMs - nowMs),
    tags,
    body_bytes: entry.body === null ? lengthOf(entry.parts) : entry.body.length,
    complete_bytes: entry.body === null ? entry.completeBytes : entry.body.length,
    codings: Object.fromEntries(forms.flatMap(({ coding, body }) => (body === null ? [] : [[coding, body.length]]))),
    size_bytes: sizeBytes,
  }
}

/** As rules spell URLs: on both schemes, or on every host. */
function spellUrl(url: string): string {
  const { authority, path, query } = targetOf(url)
  return `${authority === null ? '' : `//${authority}`}${path}${query}`
}

function spellPattern(pattern: string): string {
  const rest = pattern.replace(/^https?:\/\//i, '')
  const slash = rest.indexOf('/')
  if (rest === pattern && slash !== 0 && !pattern.startsWith('*')) {
    throw notUrl(pattern, 'A pattern begins with "/", "http://", "https://" or "*".')
  }
  const host = slash < 0 ? rest : rest.slice(0, slash)
  const target = slash < 0 ? '' : targetOf(rest.slice(slash))
  return (slash === 0 ? '' : `//${host.toLowerCase()}`) + (target === '' ? '' : target.path + target.query)
}

function targetOf(url: string): NormalTarget {
  const target = normalizeTarget(url)
  if (!(target instanceof GatewayError) && target.form !== 'asterisk') return target
  throw notUrl(url, target instanceof GatewayError ? target.detail : 'It names no resource.')
}

const notUrl = (url: string, why: string): GatewayError =>
  new GatewayError('bad_target', `${JSON.stringify(url)} cannot be purged: ${why}`)
