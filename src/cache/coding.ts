// Which stored responses may be sent in a content coding (RFC 9110 §8.4), and what the head of such an answer says. What is
// stored keeps the origin's own fields: the origin knows one representation, and is asked about that with its own
// validators.
//
// The ETag of a coded form is the origin's, weakened. A strong one would claim the same bytes for all forms (§8.8.3.3).
// One with a suffix would be strong, but nobody else knows it: a condition that goes on to the origin, or comes to
// another instance or to this one after its cache was emptied, would fail where W/"x" still matches "x". If-Match alone
// takes no weak tag, and goes to the origin with the strong one (withStrongIfMatch). So parts are cut from the identity
// alone, and no weak tag asks for them (§13.1.5); a date cannot tell forms apart, and does not ask for parts of what may
// be coded either.
//
// Only what is stored, and so not one user's, is coded: a secret beside text that a stranger chooses would show in the
// length of the two compressed together (BREACH).

import type { HeaderList, RequestContext } from '../core/context.ts'
import { remember } from '../core/remember.ts'
import { weakened } from '../http/conditional.ts'
import { getHeader, hasHeader, withoutHeaders } from '../http/headers.ts'
import type { Coding } from '../http/negotiation.ts'
import type { CodedForm, StoredHead } from './entry.ts'
import type { CachePolicy } from './policy.ts'

/** Below it the head outweighs what could be saved. */
const MIN_BODY_BYTES = 1024
/** Above it one body would occupy a thread for too long: a second or so. */
const MAX_BODY_BYTES = 32 * 1024 ** 2

/** Types beside text/*, +json and +xml that compress well. Event streams are text, and are read as they come. */
const MAX_KNOWN_TYPES = 200
const TEXTUAL: ReadonlySet<string> = new Set([
  'application/ecmascript',
  'application/graphql',
  'application/javascript',
  'application/json',
  'application/jsonl',
  'application/ndjson',
  'application/rtf',
  'application/toml',
  'application/vnd.ms-fontobject',
  'application/wasm',
  'application/x-javascript',
  'application/x-ndjson',
  'application/x-yaml',
  'application/xml',
  'application/yaml',
  'font/otf',
  'font/ttf',
  'image/bmp',
  'image/vnd.microsoft.icon',
  'image/x-icon',
])

/** Fields by which the origin vouches for the very bytes it sent (RFC 9530 and its forerunners), or says that there are
 *  other bytes already. */
const OF_THE_BYTES: readonly string[] = [
  'content-encoding',
  'content-range',
  'content-digest',
  'repr-digest',
  'digest',
  'content-md5',
]

/** Whether this response, once stored, may be sent in a coding as well. Without a Content-Length, which what is stored
 *  has, its body counts as long enough. */
export function mayCode({ status, headers }: { readonly status: number; readonly headers: HeaderList }): boolean {
  if (status !== 200 || !isTextual(getHeader(headers, 'content-type') ?? '')) return false
  const length = getHeader(headers, 'content-length')
  if (length !== null && (Number(length) < MIN_BODY_BYTES || Number(length) > MAX_BODY_BYTES)) return false
  return !OF_THE_BYTES.some((lowerName) => hasHeader(headers, lowerName)) && !forbidsTransforming(headers)
}

const isTextual = remember((contentType): boolean => {
  const [essence = ''] = contentType.toLowerCase().split(';')
  const type = essence.trim()
  if (type.startsWith('text/')) return type !== 'text/event-stream'
  return type.endsWith('+json') || type.endsWith('+xml') || TEXTUAL.has(type)
}, MAX_KNOWN_TYPES)
/** RFC 9111 §5.2.2.6, in any Cache-Control, for whichever cache it is (RFC 9213). */
function forbidsTransforming(headers: HeaderList): boolean {
  for (let i = 0; i < headers.length; i += 2) {
    const lower = (headers[i] as string).toLowerCase()
    if (!lower.endsWith('cache-control')) continue
    if (/no-transform/i.test(headers[i + 1] as string)) return true
  }
  return false
}

// ---- forms ----

/** A form of a response with these fields. body: in a buffer of its own; null: coded, it is not enough smaller. */
export const codedForm = (headers: HeaderList, coding: Coding, body: Buffer | null): CodedForm => ({
  coding,
  headers: body === null ? [] : codedHeaders(headers, coding, body.length),
  body,
})

/** The same forms under the fields of a later head. */
export const recoded = (forms: readonly CodedForm[], headers: HeaderList): readonly CodedForm[] =>
  forms.map(({ coding, body }) => codedForm(headers, coding, body))

function codedHeaders(headers: HeaderList, coding: Coding, bodyBytes: number): HeaderList {
  const kept = withoutHeaders(headers, OF_THE_IDENTITY)
  const tag = getHeader(headers, 'etag')
  if (tag !== null) kept.push('ETag', weakened(tag))
  // Else who has to resume what broke off would ask for a part of the identity, and put the two together.
  kept.push('Accept-Ranges', 'none', 'Content-Encoding', coding, 'Content-Length', String(bodyBytes))
  return kept
}

const OF_THE_IDENTITY: ReadonlySet<string> = new Set(['accept-ranges', 'content-length', 'etag'])

// ---- answers ----

/** Says that others may get the same in another coding (RFC 9110 §12.5.5), where the origin has not said so. */
export function sayVaries(ctx: RequestContext, { varyNames }: Pick<StoredHead, 'varyNames'>): void {
  if (!varyNames.includes('accept-encoding')) ctx.fields.push('Vary', 'Accept-Encoding')
}

/** The same of an answer that is not stored yet, where it is to be sent in other codings once it is. */
export function sayMayVary(
  ctx: RequestContext,
  policy: CachePolicy,
  head: Pick<StoredHead, 'status' | 'headers' | 'varyNames'>,
): void {
  if (policy.compress && mayCode(head)) sayVaries(ctx, head)
}
