// Purging and looking into the cache as people ask for it: by URL, by its beginning, by a pattern, by tag. An absolute URL
// stands for both schemes, since TLS often ends before the gateway and what people know as https:// is stored as http://.
// What begins with `/` stands for every host.
//
// A pattern is matched by searching for its pieces one after another: no text from outside becomes a regular expression,
// and no pattern takes longer than its length times the URL's.

import type { StoredResponse } from '../cache/entry.ts'
import { pathOfKey } from '../cache/key.ts'
import { purgeKey, purgeTags, purgeWhere, sweep } from '../cache/purge.ts'
import type { SharedCache } from '../cache/shared.ts'
import { wholeSeconds } from '../cache/status.ts'
import type { PurgeRequest, StoredEntries, StoredEntry } from '../core/control.ts'
import { GatewayError } from '../core/errors.ts'
import { type NormalTarget, normalizeTarget } from '../http/target.ts'

/** Entries listed for one URL. */
const MAX_LISTED = 100
const SCHEMES = ['http', 'https'] as const

type KeyTest = (key: string) => boolean

/** Removes what a request names, every variant; resolves with how many. Rejects with a GatewayError that names the first
 *  text that is no URL; nothing is removed then. */
export async function purge(cache: SharedCache, request: PurgeRequest): Promise<number> {
  if ('urls' in request) return purgeUrls(cache, request.urls)
  if ('tags' in request) return purgeTags(cache, request.tags)
  if ('prefix' in request) return purgeWhere(cache, prefixTest(request.prefix))
  if ('pattern' in request) return purgeWhere(cache, patternTest(request.pattern))
  return purgeWhere(cache, () => true)
}

/** What is stored under a URL, on every host where it is a path. Rejects with a GatewayError where it is none. */
export async function storedEntries(cache: SharedCache, url: string): Promise<StoredEntries> {
  const { store } = cache
  const { authority, path, query } = targetOf(url)
  const entries: StoredEntry[] = []
  let found = 0
  const list = (key: string) => {
    for (const entry of store.get(key) ?? []) if (found++ < MAX_LISTED) entries.push(describe(entry, cache.now()))
  }
  if (authority !== null) for (const scheme of SCHEMES) list(`${scheme}://${authority}${path}${query}`)
  else {
    await sweep(cache, store.keys(), store.entries, (key) => {
      if (pathOfKey(key) === path + query) list(key)
      return 0
    })
  }
  return { entries, truncated: found > entries.length }
}

function describe(entry: StoredResponse, nowMs: number): StoredEntry {
  const { key, status, varyNames, varyValues, bornAtMs, freshUntilMs, tags, body, sizeBytes } = entry
  return {
    url: key,
    status,
    vary: Object.fromEntries(varyNames.map((name, i) => [name, varyValues[i] ?? null])),
    age_s: wholeSeconds(nowMs - bornAtMs),
    ttl_s: wholeSeconds(freshUntilMs - nowMs),
    tags,
    body_bytes: body.length,
    size_bytes: sizeBytes,
  }
}

async function purgeUrls(cache: SharedCache, urls: readonly string[]): Promise<number> {
  const targets = urls.map(targetOf)
  let purged = 0
  const everywhere = new Set<string>()
  for (const { authority, path, query } of targets) {
    if (authority === null) everywhere.add(path + query)
    else for (const scheme of SCHEMES) purged += purgeKey(cache, `${scheme}://${authority}${path}${query}`)
  }
  // One walk over all keys, however many paths.
  return everywhere.size === 0 ? purged : purged + (await purgeWhere(cache, (key) => everywhere.has(pathOfKey(key))))
}

function prefixTest(prefix: string): KeyTest {
  const { authority, path, query } = targetOf(prefix)
  const normal = `${authority ?? ''}${path}${query}`
  return authority === null
    ? (key) => pathOfKey(key).startsWith(normal)
    : (key) => key.startsWith(normal, key.indexOf('://') + 3)
}

function patternTest(pattern: string): KeyTest {
  const rest = pattern.replace(/^https?:\/\//i, '')
  const slash = rest.indexOf('/')
  if (rest === pattern && slash !== 0 && !pattern.startsWith('*')) {
    throw notUrl(pattern, 'A pattern begins with "/", "http://", "https://" or "*".')
  }
  const host = slash < 0 ? rest : rest.slice(0, slash)
  const target = slash < 0 ? '' : targetOf(rest.slice(slash))
  const glob = compileGlob(host.toLowerCase() + (target === '' ? '' : target.path + target.query))
  return slash === 0 ? (key) => glob(pathOfKey(key)) : (key) => glob(key.slice(key.indexOf('://') + 3))
}

/** A test for whole texts, in which `*` stands for any text. */
function compileGlob(pattern: string): (text: string) => boolean {
  const [first = '', ...middle] = pattern.split('*')
  const last = middle.pop()
  if (last === undefined) return (text) => text === pattern
  return (text) => {
    if (!text.startsWith(first)) return false
    let at = first.length
    for (const piece of middle) {
      const found = text.indexOf(piece, at)
      if (found < 0) return false
      at = found + piece.length
    }
    return text.length - last.length >= at && text.endsWith(last)
  }
}

function targetOf(url: string): NormalTarget {
  const target = normalizeTarget(url)
  if (!(target instanceof GatewayError) && target.form !== 'asterisk') return target
  throw notUrl(url, target instanceof GatewayError ? target.detail : 'It names no resource.')
}

const notUrl = (url: string, why: string): GatewayError =>
  new GatewayError('bad_target', `${JSON.stringify(url)} cannot be purged: ${why}`)
