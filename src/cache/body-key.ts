// What of a request body goes into a cache key, for POST and QUERY. Pure: header fields and the whole body in, a text
// out, or why this body has none. A body without a part is forwarded and its answer not stored.
//
// The rule is that everything which may change the answer is in the part: a body is never cut down to the fields of a list;
// one that holds anything else is refused instead, since nobody said that the rest does not matter. What does not matter
// is named (body-alike.ts). Texts in a part carry their length before them, so that no two lists of texts run together
// into the same one.

import type { HeaderList } from '../core/context.ts'
import { getCombined, getHeaders, listMembers } from '../http/headers.ts'
import { type JsonPointer, type JsonValue, formatCanonical, readJson } from '../http/json.ts'
import { type AlikeOptions, addDefaults, dropIgnored, normalizeTexts } from './body-alike.ts'
import { type Condition, holds } from './condition.ts'
import { type GraphqlRefusal, KnownDocuments, graphqlTexts } from './graphql-key.ts'

/** Bytes of the largest body that is read for a key. */
export const MAX_KEYED_BODY_BYTES = 256 * 1024

/** Arrays and objects in one another, in a JSON body that has a key. */
export const MAX_KEYED_BODY_DEPTH = 64

/** canonical: the JSON value, however it is written. A mapping: likewise, of a body that holds nothing but the fields,
 *  where they are listed. raw: the exact bytes, of any type. graphql: the operation that is asked for (graphql-key.ts). */
export type BodyKeyOptions =
  | 'canonical'
  | 'raw'
  | 'graphql'
  | (AlikeOptions & { readonly fields?: readonly JsonPointer[] | undefined })

/** body-too-large: more than MAX_KEYED_BODY_BYTES. body-encoded: a Content-Encoding. body-not-json: by its Content-Type,
 *  its bytes or its grammar. unsafe-json: JSON that readers may take for different values: repeated names, numbers beyond
 *  a double, lone surrogates, deep nesting. unknown-field: holds more than the listed fields. bypass-if: a condition of the
 *  route holds of it, or may. */
export type BodyRefusal =
  | 'body-too-large'
  | 'body-encoded'
  | 'body-not-json'
  | 'unsafe-json'
  | 'unknown-field'
  | 'bypass-if'
  | GraphqlRefusal

/** part: well-formed Unicode, up to some five times as long as the body; hash it. counted: what it is made of; null where
 *  that are bytes. */
export type BodyKeyPart =
  | { readonly ok: true; readonly part: string; readonly counted: JsonValue | null }
  | { readonly ok: false; readonly reason: BodyRefusal }

const refused = (reason: BodyRefusal): BodyKeyPart => ({ ok: false, reason })

/** The rule for one route, as a function. bypassIf: bodies of which one of these holds, or may hold, have no part; for all
 *  but raw. documents: for graphql. body: whole, as it came. Never throws. */
export function compileBodyKey(
  options: BodyKeyOptions,
  bypassIf: readonly Condition[] = [],
  documents: KnownDocuments = new KnownDocuments(),
): (headers: HeaderList, body: Buffer) => BodyKeyPart {
  if (options === 'raw') return rawPart
  if (options === 'graphql') return (headers, body) => graphqlPart(headers, body, bypassIf, documents)
  const rule = jsonRuleOf(options, bypassIf)
  return (headers, body) => jsonPart(headers, body, rule)
}

/** What counts of a body, for people. */
export function shownBody(options: BodyKeyOptions, body: Buffer): string {
  const json = options === 'raw' ? null : readJson(body, { maxDepth: MAX_KEYED_BODY_DEPTH })
  if (options === 'raw' || json?.ok !== true) return `${body.length} bytes`
  if (options !== 'graphql') countedOf(json.value, jsonRuleOf(options, []))
  return formatCanonical(json.value)
}

interface JsonRule {
  readonly alike: AlikeOptions
  readonly listed: Listed
  readonly bypassIf: readonly Condition[]
}

const jsonRuleOf = (options: Exclude<BodyKeyOptions, 'raw' | 'graphql'>, bypassIf: readonly Condition[]): JsonRule => ({
  alike: options === 'canonical' ? {} : options,
  listed: options === 'canonical' || options.fields === undefined ? 'all' : listedUnder(options.fields),
  bypassIf,
})

/** The same bytes are another body under another type or coding, so these fields are part of it, absent or repeated. */
function rawPart(headers: HeaderList, body: Buffer): BodyKeyPart {
  if (body.length > MAX_KEYED_BODY_BYTES) return refused('body-too-large')
  const types = getHeaders(headers, 'content-type')
  const codings = getHeaders(headers, 'content-encoding')
  const counts = [String(types.length), String(codings.length)]
  const part = withLengths(['raw', ...counts, ...types, ...codings, body.toString('latin1')])
  return { ok: true, part, counted: null }
}

function jsonPart(headers: HeaderList, body: Buffer, rule: JsonRule): BodyKeyPart {
  const read = readBody(headers, body)
  if (typeof read === 'string') return refused(read)
  const refusal = countedOf(read.value, rule)
  if (refusal !== null) return refused(refusal)
  return { ok: true, part: withLengths(['json', read.type, formatCanonical(read.value)]), counted: read.value }
}

function graphqlPart(
  headers: HeaderList,
  body: Buffer,
  bypassIf: readonly Condition[],
  documents: KnownDocuments,
): BodyKeyPart {
  const read = readBody(headers, body)
  if (typeof read === 'string') return refused(read)
  const texts = graphqlTexts(read.value, documents)
  if (typeof texts === 'string') return refused(texts)
  if (bypassIf.some((condition) => holds(condition, read.value) !== false)) return refused('bypass-if')
  return { ok: true, part: withLengths(['graphql', read.type, ...texts]), counted: null }
}

function readBody(headers: HeaderList, body: Buffer): { type: string; value: JsonValue } | BodyRefusal {
  if (body.length > MAX_KEYED_BODY_BYTES) return 'body-too-large'
  const codings = listMembers(getCombined(headers, 'content-encoding') ?? '')
  if (codings.some((coding) => coding.toLowerCase() !== 'identity')) return 'body-encoded'
  const type = jsonType(getHeaders(headers, 'content-type'))
  if (type === null) return 'body-not-json'
  const json = readJson(body, { maxDepth: MAX_KEYED_BODY_DEPTH })
  if (json.ok) return { type, value: json.value }
  return json.reason === 'syntax' || json.reason === 'not-utf8' ? 'body-not-json' : 'unsafe-json'
}

/** Leaves of a value what counts, as it counts. Conditions see what the backend sees: defaults, and all that is ignored. */
function countedOf(value: JsonValue, { alike, listed, bypassIf }: JsonRule): BodyRefusal | null {
  addDefaults(value, alike)
  if (bypassIf.some((condition) => holds(condition, value) !== false)) return 'bypass-if'
  dropIgnored(value, alike)
  if (!holdsOnly(value, listed)) return 'unknown-field'
  normalizeTexts(value, alike)
  return null
}

const withLengths = (texts: readonly string[]): string => texts.map((text) => `${text.length}:${text}`).join('')

const TYPE = /^[!#$%&'*+\-.^_`|~0-9A-Za-z]+\/[!#$%&'*+\-.^_`|~0-9A-Za-z]+/

/** One parameter of a media type, or an empty one (RFC 9110 §5.6.6); sticky, and each blank matched in one way only. */
const PARAMETER =
  /[\t ]*;[\t ]*(?:([!#$%&'*+\-.^_`|~0-9A-Za-z]+)=([!#$%&'*+\-.^_`|~0-9A-Za-z]+|"[^"\\]*(?:\\.[^"\\]*)*"))?/gsy

/** A JSON media type in lower case (`application/json`, or a +json suffix, RFC 6839 §3.1) with its parameters except
 *  `charset=utf-8`, which says nothing (RFC 8259 §11); null for any other type or charset, and where there is not just one. */
function jsonType(values: readonly string[]): string | null {
  const [value = '', ...more] = values
  const essence = TYPE.exec(value)?.[0].toLowerCase() ?? ''
  if (more.length > 0 || (essence !== 'application/json' && !essence.endsWith('+json'))) return null
  let type = essence
  let end = essence.length
  for (const match of value.slice(essence.length).matchAll(PARAMETER)) {
    end += match[0].length
    const name = match[1]?.toLowerCase()
    if (name === 'charset' && !/^(?:utf-8|"utf-8")$/i.test(match[2] ?? '')) return null
    if (name !== undefined && name !== 'charset') type += `;${name}=${match[2]}`
  }
  return end === value.length ? type : null
}

/** What a field list names: all of a value, or of its members and elements these. */
type Listed = 'all' | Map<string, Listed>

function listedUnder(pointers: readonly JsonPointer[]): Listed {
  if (pointers.some((pointer) => pointer.length === 0)) return 'all'
  const byFirst = Map.groupBy(pointers, (pointer) => pointer[0] as string)
  return new Map([...byFirst].map(([name, group]) => [name, listedUnder(group.map((pointer) => pointer.slice(1)))]))
}

/** Whether all of a value is listed. Beside a listed `/input/prompt`, `/input/seed` may change the answer as much as a
 *  further name at the top would, and so may an `input` that is a text. */
function holdsOnly(value: JsonValue, listed: Listed): boolean {
  if (listed === 'all') return true
  if (Array.isArray(value)) return value.every((element, index) => isListed(String(index), element, listed))
  if (!(value instanceof Map)) return false
  for (const [name, member] of value) if (!isListed(name, member, listed)) return false
  return true
}

function isListed(name: string, value: JsonValue, listed: Map<string, Listed>): boolean {
  const below = listed.get(name)
  return below !== undefined && holdsOnly(value, below)
}
