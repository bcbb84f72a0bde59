// What the cache holds, and changes to it.

import { z } from 'zod'
import type { PurgeRequest } from '../../core/control.ts'
import { MAX_TAG_BYTES, isTag } from '../../http/tags.ts'
import { decoded, json } from './endpoint.ts'
import type { Endpoint } from './endpoint.ts'
import { url } from './url.ts'

const MAX_URLS = 1000
const MAX_PURGED_TAGS = 1000
const MAX_PATTERN_CHARS = 8192
const MAX_LOGGED = 10

const tag = z.string({ error: 'expected a tag as text' }).refine(isTag, {
  error: `expected a tag: 1 to ${MAX_TAG_BYTES} visible ASCII characters`,
})

const listOf = <T extends z.ZodType>(item: T, what: string, most: number) =>
  z
    .array(item, { error: `expected a list of ${what}s` })
    .min(1, { error: `expected at least one ${what}` })
    .max(most, { error: `expected at most ${most} ${what}s` })

const KINDS = ['urls', 'tags', 'prefix', 'pattern', 'all'] as const

const purgeRequest = z
  .strictObject({
    urls: listOf(url(), 'URL', MAX_URLS).optional(),
    tags: listOf(tag, 'tag', MAX_PURGED_TAGS).optional(),
    prefix: url().optional(),
    pattern: z
      .string({ error: 'expected a URL with * in it' })
      .max(MAX_PATTERN_CHARS, { error: `expected at most ${MAX_PATTERN_CHARS} characters` })
      .optional(),
    all: z.literal(true, { error: 'expected true, or nothing' }).optional(),
    soft: z.boolean({ error: 'expected true or false' }).optional(),
  })
  .transform((body, ctx): PurgeRequest => {
    const { urls, tags, prefix, pattern, all } = body
    const soft = body.soft === true ? { soft: body.soft } : {}
    if (KINDS.filter((kind) => body[kind] !== undefined).length === 1) {
      if (urls !== undefined) return { urls, ...soft }
      if (tags !== undefined) return { tags, ...soft }
      if (prefix !== undefined) return { prefix, ...soft }
      if (pattern !== undefined) return { pattern, ...soft }
      if (all !== undefined) return { all, ...soft }
    }
    ctx.issues.push({ code: 'custom', input: body, message: `expected one of ${KINDS.join(', ')}` })
    return z.NEVER
  })

const entryRequest = z.strictObject({ url: url() })

export const CACHE: readonly Endpoint[] = [
  {
    method: 'POST',
    path: '/api/cache/purge',
    summary:
      'forget what is stored for {urls: [...]}, {tags: [...]}, {prefix}, {pattern} or {all: true}, every variant; with {soft: true} it becomes stale instead',
    run: (control, body) =>
      decoded(purgeRequest, body, async (request) => {
        const result = await control.purge(request)
        const soft = request.soft === true
        return { ...json(result), change: { ...forLog(request), soft, ...result, instances: result.instances.length } }
      }),
  },
  {
    method: 'GET',
    path: '/api/cache/entry',
    summary: 'what is stored under ?url=: variants, age, ttl, tags, sizes',
    run: (control, query) => decoded(entryRequest, query, async (request) => json(await control.entries(request.url))),
  },
]

function forLog(request: PurgeRequest): object {
  if ('urls' in request) {
    return { urls: request.urls.length, first: request.urls.slice(0, MAX_LOGGED).map(withoutQuery) }
  }
  if ('tags' in request) return { tags: request.tags.length, first: request.tags.slice(0, MAX_LOGGED) }
  if ('prefix' in request) return { prefix: withoutQuery(request.prefix) }
  return 'pattern' in request ? { pattern: withoutQuery(request.pattern) } : { all: true }
}

/** A query may hold secrets, whose names this folder does not know. */
const withoutQuery = (text: string): string => text.replace(/[?#].*$/s, '?***')
