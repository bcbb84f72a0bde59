// What YAML may say of a limit. `limit` per `window` is a strict sliding window; with `burst` it is GCRA.

import { z } from 'zod'
import { NOT_SUPPORTED_YET, count, decoded, duration, later, word } from '../core/decode.ts'
import { isToken } from '../http/headers.ts'

/** One part of the subject that a budget belongs to. */
export type KeyPart =
  | { readonly kind: 'ip' | 'route' | 'method' | 'host' }
  /** name: lower case. */
  | { readonly kind: 'header'; readonly name: string }

/** `ip route method host header:<name>`; null for anything else. */
export function parseKeyPart(text: string): KeyPart | null {
  if (text === 'ip' || text === 'route' || text === 'method' || text === 'host') return { kind: text }
  const name = text.startsWith('header:') ? text.slice('header:'.length).toLowerCase() : ''
  return isToken(name) ? { kind: 'header', name } : null
}

export const formatKeyPart = (part: KeyPart): string => (part.kind === 'header' ? `header:${part.name}` : part.kind)

const keyPart = () =>
  decoded(
    'ip, route, method, host or header:<name>',
    `user, cookie:<name> and param:<name> are ${NOT_SUPPORTED_YET}`,
    parseKeyPart,
  )

export const limitOptions = z.strictObject({
  limit: count({ min: 1, max: 2 ** 31 }).describe('requests admitted per window'),
  window: duration({ minMs: 100 }).describe('the window; never more than `limit` in any span of this length'),
  key: z
    .union([keyPart().transform((part) => [part]), z.array(keyPart()).min(1)])
    .prefault('ip')
    .describe('whose budget it is: one part or a list; a policy is one budget for all routes that name it'),
  burst: count({ min: 1, max: 2 ** 31 })
    .optional()
    .describe('turns the window into a steady rate (GCRA) that allows this many at once'),
  onMissing: word(['ip', 'skip'], ['deny'])
    .prefault('ip')
    .describe('what to do when a header of the key is missing: use the address instead, or do not limit'),
  mode: word(['enforce'], ['shadow']).prefault('enforce').describe('enforce: over the limit is a 429'),
  count: word(['all'], ['miss', 'success', 'failure']).prefault('all').describe('which requests are charged'),
  kind: word(['rate'], ['concurrency']).prefault('rate').describe('what is limited'),
  unit: word(['requests'], ['tokens']).prefault('requests').describe('what a unit of the limit is'),
  align: later(),
  reserve: later(),
  cost: later(),
  enabledPercent: later(),
  fallback: later(),
  lease: later(),
  allow: later(),
  deny: later(),
})

export type LimitOptions = z.output<typeof limitOptions>
