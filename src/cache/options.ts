// What YAML may say of the cache: one memory for the whole gateway, and per route what may be kept and for how long.

import { z } from 'zod'
import {
  amount,
  count,
  data,
  decoded,
  duration,
  flag,
  flagOr,
  formatDuration,
  size,
  text,
  word,
} from '../core/decode.ts'
import { CONDITIONAL_FIELDS } from '../http/conditional.ts'
import { WELL_KNOWN } from '../http/credentials.ts'
import { UNTRUSTED_FIELDS } from '../http/forwarded.ts'
import { HOP_BY_HOP, isToken } from '../http/headers.ts'
import { isPlainJson, parseField } from '../http/json.ts'
import { TEXT_FORMS } from './body-alike.ts'
import { parseCondition } from './condition.ts'
import { CACHEABLE_METHODS, GET_AND_HEAD } from './methods.ts'
import { STREAM_FORMATS } from './stream-rule.ts'
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
  disk: z
    .strictObject({
      path: text('the path of a file', (path) => (path === '' || path.includes('\0') ? 'name a file' : null)).describe(
        'a file in a folder that is there, from the working directory where it does not begin with /; made where it is not there, for this gateway alone; what is in it outlives a restart',
      ),
      max: size({ minBytes: 16 * 1024 ** 2 })
        .prefault('1GiB')
        .describe(
          'bytes of that file; what was of use longest ago goes first, and an entry of more than half is not kept',
        ),
    })
    .optional()
    .describe('a copy on disk of what is stored: read where memory has nothing, written behind; without it, none'),
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

/** Parameters by name; `utm_*` is all that begins with `utm_`. */
const parameters = () =>
  z
    .array(
      text('the name of a parameter', (name) =>
        /^[!-~]+$/.test(name) && !/[&=#;%+]|\*./.test(name)
          ? null
          : 'as it stands in the URL, without "="; one * at the end stands for any ending',
      ),
    )
    .max(MAX_NAMES)

const keyFields = () =>
  z.array(text('the name of a request field', checkKeyField).transform((name) => name.toLowerCase())).max(MAX_NAMES)

/** Names in one list of a key. */
const MAX_NAMES = 100

function checkKeyField(name: string): string | null {
  const lower = name.toLowerCase()
  if (!isToken(name)) return 'letters, digits and dashes'
  if (lower === 'cookie') return 'name the cookies that count in key.cookies'
  if (WELL_KNOWN.names.has(lower)) return '`scope: user` keeps answers for each user alone'
  if (lower === 'host') return 'scheme and host are in every key'
  const isForOrigin = !HOP_BY_HOP.has(lower) && !UNTRUSTED_FIELDS.has(lower) && !NOT_IN_KEYS.has(lower)
  return isForOrigin ? null : 'name a field that asks for another answer and reaches the upstream as it came'
}

/** Fields that the gateway reads or writes itself, beside those that end here. */
const NOT_IN_KEYS: ReadonlySet<string> = new Set([
  ...CONDITIONAL_FIELDS,
  'range',
  'expect',
  'content-length',
  'via',
  'x-request-id',
])

const A_FIELD = 'the name of a field, or a JSON Pointer'
const FIELD_CURE = 'such as prompt, or /input/prompt'

const bodyField = () => decoded(A_FIELD, FIELD_CURE, parseField)
const bodyFields = () => z.array(bodyField()).min(1).max(MAX_NAMES)

/** Values by field of a body. */
const byBodyField = <T extends z.ZodType>(value: T) =>
  z
    .record(
      text(A_FIELD, (field) => (parseField(field) === null ? FIELD_CURE : null)),
      value,
    )
    .transform((byField) => Object.entries(byField).map(([field, each]) => [parseField(field) ?? [], each] as const))

const conditions = () =>
  z
    .array(
      decoded(
        'a condition such as "temperature > 0"',
        'a field, then exists, absent, empty or filled, or == != < <= > >= and a number, true, false or a "text"',
        parseCondition,
      ),
    )
    .min(1)
    .max(MAX_NAMES)

const bodyOptions = z.strictObject({
  only: bodyFields().optional().describe('a body with any other field is not looked up; default all fields count'),
  ignore: bodyFields()
    .optional()
    .describe('members of objects that change no answer, such as request_id; they may be there beside `only`'),
  defaults: byBodyField(data('a JSON value', 'no dates, and no whole numbers beyond 9007199254740991', isPlainJson))
    .optional()
    .describe('what the upstream takes where a field is absent: a body without it is the same as one with just that'),
  normalize: byBodyField(z.array(word(TEXT_FORMS)).min(1))
    .optional()
    .describe(
      'texts whose spelling changes no answer. trim: white space around; collapse-spaces: each run of white space as one space; nfc: composed characters; lower: small letters',
    ),
})

const keyOptions = z.strictObject({
  query: z
    .strictObject({
      only: parameters().optional().describe('only these parameters; utm_* for all that begin so'),
      ignore: parameters().optional().describe('all parameters but these; utm_* for all that begin so'),
    })
    .optional()
    .describe('parameters that count, in any order; default the query as it comes'),
  headers: keyFields().optional().describe('request fields whose values count, beside those that Vary names'),
  cookies: z
    .array(text('the name of a cookie', (name) => (isToken(name) ? null : 'as it stands before the "="')))
    .max(MAX_NAMES)
    .optional()
    .describe('cookies whose values count; who may share an answer is for scope to say'),
  body: z
    .union([
      word(['canonical', 'raw', 'graphql']),
      bodyFields().transform((fields) => ({ fields })),
      bodyOptions.transform(({ only, ...alike }) => ({ fields: only, ...alike })),
    ])
    .optional()
    .describe(
      'what counts of the body of a POST or QUERY, up to 256 KiB. canonical: the JSON value, however it is written; a list: likewise, and a body with any other field is not looked up; a mapping: likewise, and what is alike beyond that; raw: the exact bytes; graphql: a query with its variables, however it is written, also as a GET (mutations and what is not clear go to the upstream; a mutation that succeeds takes what the route `purges`, without that all that is stored under its URL). The upstream gets the bytes as they came',
    ),
})

/** As `paced` means it. */
const PACE = { speed: 1, maxGapMs: 200, maxTotalMs: 3000 }

const ON_ABORT = ['auto', 'finish', 'abort'] as const
export type OnAbort = (typeof ON_ABORT)[number]

export const routeCacheOptions = z.strictObject({
  ttl: ttl
    .optional()
    .describe('freshness lifetime of a response that carries none of its own; a mapping gives it per status'),
  override: flag()
    .prefault(false)
    .describe("true: ttl wins over the origin's own freshness (never over no-store or private)"),
  jitter: flag()
    .prefault(true)
    .describe(
      'true: ttl is up to 5 % shorter or longer for each response, so that what was stored together does not expire together; clamp holds all the same',
    ),
  clamp: z
    .strictObject({
      min: duration().prefault('0s').describe('shortest freshness lifetime'),
      max: duration().optional().describe('longest freshness lifetime'),
    })
    .optional()
    .describe('bounds on the freshness lifetime, whoever set it'),
  scope: word(['auto', 'public', 'user'])
    .prefault('auto')
    .describe(
      'auto: requests with Authorization, an API key or Cookie share nothing unless the origin allows it (RFC 9111 §3.5); public: they share as all others do; user: each user has answers of their own, told apart by those fields, and who sends none of them is not answered from the cache. What the origin calls private is never stored',
    ),
  maxObject: size({ minBytes: 1 })
    .optional()
    .describe('largest response that this route stores; default cache.maxObject'),
  collapse: flagOr(['shared'])
    .prefault(true)
    .describe(
      'concurrent misses of one key share one fetch, for which 1,000 wait at most; shared: across all instances with the same Redis',
    ),
  onAbort: word(ON_ABORT)
    .prefault('auto')
    .describe(
      'what becomes of a fetch whose clients have all gone. abort: it is given up; finish: where its answer may be stored it goes on, for 30 s at most, for who asks next; auto: likewise, once its answer has begun or it has taken half as long as fetches of this route do, and not with the last slot that a limit has for its client. As many as a tenth of concurrency.max of the upstream, or of connections, may go on so, and at least one; slots of limits are held until the end. What waits in line is given up',
    ),
  compress: flag()
    .optional()
    .describe(
      'what is stored is also kept in the content codings that clients accept (br, zstd, gzip), where it is text, JSON or the like of 1 KiB or more; default true, with scope user false: a secret shows in the length of what it is compressed together with, where a stranger can choose some of that (BREACH)',
    ),
  clientControl: word(['ignore', 'honor'])
    .prefault('ignore')
    .describe(
      'ignore: Cache-Control and Pragma in a request change nothing; honor: clients may turn down what is stored, want nothing else, or take it stale (RFC 9111 §5.2.1), so that each of them can have the upstream asked',
    ),
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
  key: keyOptions.optional().describe('what tells answers apart, beside scheme, host, path and query'),
  tags: tagTemplates()
    .optional()
    .describe('names to purge by; `:name` is a value from the path; the tags that an answer names itself come on top'),
  methods: z
    .array(
      decoded(
        `one of ${CACHEABLE_METHODS.join(', ')}`,
        'answers to other methods are not stored',
        (value) => CACHEABLE_METHODS.find((method) => method === value.toUpperCase()) ?? null,
      ).meta({ anyOf: [{ enum: [...CACHEABLE_METHODS] }, { type: 'string', pattern: String.raw`\$\{` }] }),
    )
    .min(1)
    .optional()
    .describe(
      'methods that are answered from the cache; default GET and HEAD, and on a route for neither POST with key.body, and QUERY',
    ),
  bypassIf: conditions()
    .optional()
    .describe(
      'a POST or QUERY is not looked up where one of these holds of its JSON body, as in [temperature > 0, stream == true, n > 1], or cannot be told since the types differ; null counts as absent, and `defaults` count',
    ),
  storeIf: conditions()
    .optional()
    .describe(
      'a success is stored only where its body is JSON of which all of these hold, as in [slides filled, /choices/0/finish_reason == "stop"]',
    ),
  rejectIf: conditions()
    .optional()
    .describe(
      'a success is stored only where its body is JSON of which none of these holds, as in [warning exists], nor cannot be told since the types differ; null counts as absent',
    ),
  storeUnfinished: flag()
    .prefault(false)
    .describe(
      'true: JSON answers to a POST, and streams that have ended as they should, are stored without a look at them; false: not where they have an `error`, or say in the words of OpenAI, Anthropic, Google or Ollama that they were cut short or filtered (finish_reason length, stop_reason max_tokens and the like)',
    ),
  originNoCache: word(['ignore', 'honor'])
    .prefault('ignore')
    .describe(
      'ignore: no-cache and max-age=0 in the answer to a POST, or of a stream, leave it to `ttl` how long it is fresh (never no-store or private, nor what a targeted field says); honor: they count, as they do for every other answer',
    ),
  terminal: z
    .union([
      word(STREAM_FORMATS),
      z.strictObject({
        event: text('the name of an event', (name) =>
          name !== '' && !/[\r\n]/.test(name) ? null : 'as it stands behind `event: `',
        )
          .optional()
          .describe('its name'),
        data: text('a text', (value) => (value === value.trim() ? null : 'without white space around it'))
          .optional()
          .describe('its data, white space around it left aside'),
        when: conditions().optional().describe('what its data is, as JSON: all of these hold'),
      }),
    ])
    .optional()
    .describe(
      'the last event of a stream (text/event-stream, JSON lines) that is whole; one that ends otherwise is passed on and not stored. openai: the data is [DONE]; anthropic: message_stop; responses: response.completed; or what all of `event`, `data` and `when` say. Default: for answers to POST the one of these formats that it speaks, and for others an end behind any event; of no other method is a stream stored then',
    ),
  replay: z
    .union([
      word(['instant', 'paced']).transform((how) => (how === 'instant' ? null : PACE)),
      z
        .strictObject({
          speed: count({ min: 1, max: 1000 }).prefault(PACE.speed).describe('how many times as fast as it came'),
          maxGap: duration().prefault(formatDuration(PACE.maxGapMs)).describe('longest time between two events'),
          maxTotal: duration()
            .prefault(formatDuration(PACE.maxTotalMs))
            .describe('longest time from the first event to the last'),
        })
        .transform(({ speed, maxGap, maxTotal }) => ({ speed, maxGapMs: maxGap, maxTotalMs: maxTotal })),
    ])
    .prefault('instant')
    .describe(
      'how a stored stream is sent, byte for byte as it came but for comments. instant: at once; paced: event by event as it came, but without long gaps; a mapping: likewise, and how fast',
    ),
  callCost: amount()
    .optional()
    .describe(
      'what one call of the upstream costs, in a unit of your own that is the same on all routes; /api/stats and /metrics tell what the cache has saved of it',
    ),
})

export type RouteCacheOptions = z.output<typeof routeCacheOptions>

/** The methods that a route's cache answers. listed: `cache.methods`; routeMethods: those of the route, null for all; hasBodyKey: `key.body` is there. Where nothing
 *  is listed, a route for GET has GET, and one without it what it can have; empty where that is nothing. Upper case. */
export function cachedMethods(
  listed: readonly string[] | null,
  routeMethods: readonly string[] | null,
  hasBodyKey: boolean,
): ReadonlySet<string> {
  if (listed !== null) return new Set(listed.includes('GET') ? [...listed, 'HEAD'] : listed)
  if (routeMethods === null || routeMethods.some((method) => GET_AND_HEAD.has(method))) return GET_AND_HEAD
  return new Set(routeMethods.filter((method) => method === 'QUERY' || (method === 'POST' && hasBodyKey)))
}
