// What an answer tells of the limits, as a strict client reads it.

import type { IncomingHttpHeaders } from 'node:http'
import { type Item, parseList } from './structured-fields.ts'

export interface ToldLimit {
  readonly q: number
  /** null for slots, which have no window. */
  readonly w: number | null
  /** null where the answer does not say how the policy stands. */
  readonly r: number | null
  readonly t: number | null
}

/** RateLimit-Policy and RateLimit by policy. Throws where they say what no conforming client could read, or what cannot be
 *  true. */
export function readLimits(headers: IncomingHttpHeaders): Map<string, ToldLimit> {
  const standings = new Map(read(headers, 'ratelimit').map((item) => [nameOf(item), item]))
  const limits = new Map<string, ToldLimit>()
  for (const item of read(headers, 'ratelimit-policy')) {
    const name = nameOf(item)
    const standing = standings.get(name)
    const q = whole(item, 'q')
    const w = item.params.get('qu') === 'concurrent-requests' ? null : whole(item, 'w')
    const [r, t] = standing === undefined ? [null, null] : [whole(standing, 'r'), whole(standing, 't')]
    if (w === 0 || (r !== null && r > q)) throw new RangeError(`${name}: q=${q}, w=${w}, r=${r}`)
    limits.set(name, { q, w, r, t })
    standings.delete(name)
  }
  if (standings.size > 0) throw new RangeError(`no policy ${[...standings.keys()].join(', ')}`)
  return limits
}

const read = (headers: IncomingHttpHeaders, name: string) => parseList(String(headers[name] ?? ''))

function nameOf({ value }: Item): string {
  if (typeof value !== 'string') throw new TypeError(`expected the name of a policy, got ${JSON.stringify(value)}`)
  return value
}

function whole({ params }: Item, name: string): number {
  const value = params.get(name)
  if (typeof value !== 'number' || !Number.isSafeInteger(value) || value < 0) {
    throw new RangeError(`${name}: expected a whole number, got ${JSON.stringify(value)}`)
  }
  return value
}
