// Purging as people ask for it: by URL. An absolute URL stands for both schemes, since TLS often ends before the
// gateway and what people know as https:// is stored as http://. A path alone stands for every host.

import { pathOfKey } from '../cache/key.ts'
import { purgeKey, purgeWhere } from '../cache/purge.ts'
import type { SharedCache } from '../cache/shared.ts'
import { GatewayError } from '../core/errors.ts'
import { type NormalTarget, normalizeTarget } from '../http/target.ts'

/** Removes every stored variant of each URL; answers how many. urls: absolute, or a path. Throws a GatewayError that
 *  names the first URL that is none; nothing is removed then. */
export function purgeUrls(cache: SharedCache, urls: readonly string[]): number {
  const targets = urls.map(targetOf)
  let purged = 0
  const everywhere = new Set<string>()
  for (const { authority, path, query } of targets) {
    if (authority === null) everywhere.add(path + query)
    else for (const scheme of ['http', 'https']) purged += purgeKey(cache, `${scheme}://${authority}${path}${query}`)
  }
  // One walk over all keys, however many paths.
  return everywhere.size === 0 ? purged : purged + purgeWhere(cache, (key) => everywhere.has(pathOfKey(key)))
}

function targetOf(url: string): NormalTarget {
  const target = normalizeTarget(url)
  if (!(target instanceof GatewayError) && target.form !== 'asterisk') return target
  const why = target instanceof GatewayError ? target.detail : 'It names no resource.'
  throw new GatewayError('bad_target', `${JSON.stringify(url)} cannot be purged: ${why}`)
}
