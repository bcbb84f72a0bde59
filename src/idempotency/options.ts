// What YAML may say of the Idempotency-Key of requests (draft-ietf-httpapi-idempotency-key-header): what this instance may
// hold for all routes, and per route which requests are done once.

import { z } from 'zod'
import { count, decoded, duration, flag, size, word } from '../core/decode.ts'

export const idempotencyMemoryOptions = z.strictObject({
  memory: size({ minBytes: 1024 ** 2 })
    .prefault('64MiB')
    .describe(
      'bytes that recorded answers may take; where there is no room, the oldest answer goes, and a repeat of its request is a 409',
    ),
  keys: count({ min: 100, max: 10_000_000 })
    .prefault(100_000)
    .describe(
      'keys that this instance remembers, some 300 bytes each beside the answer; where there are more, the oldest is forgotten, which a metric counts: a repeat of its request is then sent again',
    ),
})

type MemoryOptions = z.output<typeof idempotencyMemoryOptions>

/** As table.ts takes them. */
export const boundsOf = ({ memory, keys }: MemoryOptions): { maxBytes: number; maxKeys: number } => ({
  maxBytes: memory,
  maxKeys: keys,
})

/** Those that change things. */
const METHODS = ['POST', 'PATCH', 'PUT', 'DELETE'] as const
/** The others may be repeated as they are (RFC 9110 §9.2.2). */
export const KEYED_BY_DEFAULT: readonly string[] = ['POST', 'PATCH']

/** In any case; upper case here, as everybody writes them. */
const method = () =>
  decoded(`one of ${METHODS.join(', ')}`, null, (value) => METHODS.find((m) => m === value.toUpperCase()) ?? null).meta(
    { anyOf: [{ enum: [...METHODS] }, { type: 'string', pattern: String.raw`\$\{` }] },
  )

const parts = z.strictObject({
  for: duration({ minMs: 1000 }).prefault('24h').describe('how long a key is remembered'),
  required: flag().prefault(false).describe('true: such a request without a key is a 400'),
  methods: z
    .array(method())
    .min(1)
    .prefault([...KEYED_BY_DEFAULT])
    .describe('requests that are done once for each key; POST, PATCH, PUT, DELETE'),
  maxBody: size({ minBytes: 1 })
    .prefault('1MiB')
    .describe('largest body of a request with a key, which is held in memory; more is a 413, and not sent'),
  maxAnswer: size({ minBytes: 1 })
    .prefault('1MiB')
    .describe(
      'largest answer that is recorded; of a larger one the first request gets all, and a repeat is a 409. Where Redis is shared, other instances get no more than a compressed MiB',
    ),
  unknown: word(['refuse', 'retry'])
    .prefault('refuse')
    .describe(
      'a repeat of a request of which nobody knows whether it was carried out (its upstream broke off, took too long, answered 500, 502 or 504, or the instance that sent it has died). refuse: a 409, as long as the key is remembered; retry: it is sent again, for upstreams that know the key themselves, which they get',
    ),
})

export type IdempotencyOptions = z.output<typeof parts>

/** null: switched off. */
export const idempotencyOptions = z.union([flag().transform((isOn) => (isOn ? parts.parse({}) : null)), parts])
