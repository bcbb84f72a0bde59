// What YAML may say of the cache: one memory for the whole gateway, and per route what may be kept and for how long.

import { z } from 'zod'
import { decoded, duration, flag, later, size, text, word } from '../core/decode.ts'
import { isToken } from '../http/headers.ts'
import { MAX_TAGS, MAX_TAG_BYTES, isTag } from '../http/tags.ts'

export const memoryOptions = z.strictObject({
  memory: size({ minBytes: 1024 ** 2 })
    .prefault('256MiB')
    .describe('bytes that stored responses may take'),
  maxObject: size({ minBytes: 1024 }).prefault('8MiB').describe('largest response that is stored'),
  targeted: z
    .array(
      decoded('the name of a field', 'letters, digits and dashes', (name) =>
        isToken(name) ? name.toLowerCase() : null,
      ),
    )
    .prefault(['CDN-Cache-Control'])
    .describe(
      'response fields for caches like this one, which count before Cache-Control (RFC 9213), the first one first',
    ),
  disk: later(),
})

export type MemoryOptions = z.output<typeof memoryOptions>

/** `:name` in a tag; the same names as in a path pattern. */
export const TAG_PARAMETER = /:([A-Za-z][A-Za-z0-9_]*)/g

/** `tags` and `purges`. What a `:name` refers to is checked in config/references.ts. */
export const tagTemplates = () => z.array(text('a tag', checkTag)).max(MAX_TAGS)

const checkTag = (tag: string): string | null =>
  isTag(tag) && !tag.includes(',') ? null : `1 to ${MAX_TAG_BYTES} visible ASCII characters, no blank, no comma`

const statusCode = () =>
  decoded('a status code', 'write a number from 200 to 599', (text) => (/^[2-5]\d\d$/.test(text) ? Number(text) : null))

const ttl = z.union([
  duration().transform((ms) => ({ every: ms, byStatus: null })),
  z.record(statusCode(), duration()).transform((byStatus) => ({
    every: null,
    byStatus: new Map(Object.entries(byStatus).map(([s, ms]) => [Number(s), ms])),
  })),
])

export const routeCacheOptions = z.strictObject({
  ttl: ttl
    .optional()
    .describe('freshness lifetime of a response that carries none of its own; a mapping gives it per status'),
  override: flag()
    .prefault(false)
    .describe("true: ttl wins over the origin's own freshness (never over no-store or private)"),
  clamp: z
    .strictObject({
      min: duration().prefault('0s').describe('shortest freshness lifetime'),
      max: duration().optional().describe('longest freshness lifetime'),
    })
    .optional()
    .describe('bounds on the freshness lifetime, whoever set it'),
  scope: word(['auto', 'public'], ['user'])
    .prefault('auto')
    .describe(
      'auto: requests with Authorization, an API key or Cookie share nothing unless the origin allows it (RFC 9111 §3.5); public: they share as all others do',
    ),
  maxObject: size({ minBytes: 1 })
    .optional()
    .describe('largest response that this route stores; default cache.maxObject'),
  collapse: flag().prefault(true).describe('concurrent misses of one key share one fetch'),
  clientControl: word(['ignore'], ['honor'])
    .prefault('ignore')
    .describe('ignore: Cache-Control in a request changes nothing'),
  storeSetCookie: flag().prefault(false).describe('true: responses with Set-Cookie may be stored, cookie and all'),
  stale: z
    .strictObject({
      whileRevalidate: duration()
        .prefault('0s')
        .describe('for how long past its freshness a response still answers while it is being refreshed'),
      ifError: duration()
        .prefault('1d')
        .describe('for how long past its freshness a response still answers when the upstream fails; 0s: never'),
    })
    .prefault({})
    .describe('stale answers where the origin says nothing of them; must-revalidate and its kin forbid them'),
  key: later(),
  tags: tagTemplates()
    .optional()
    .describe('names to purge by; `:name` is a value from the path; the tags that an answer names itself come on top'),
  methods: later(),
  replay: later(),
  terminal: later(),
})

export type RouteCacheOptions = z.output<typeof routeCacheOptions>
