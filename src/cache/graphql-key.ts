// What tells the answers to GraphQL requests apart, and which requests may be answered from the cache at all: queries, of
// which nobody can doubt that they are. Two that differ in nothing but how they are written are one.
//
// A request is a document, the name of one of its operations, and variables (GraphQL over HTTP, §5), as the JSON body of a
// POST or as parameters of a GET. In place of the document its SHA-256 may stand (automatic persisted queries), which says
// nothing of what it is: a POST of that kind is a query only where this instance has seen the document itself. A
// GET changes nothing (§6.2), whatever its document is.
//
// Anything else is not looked up: mutations and documents with one in them, subscriptions, batches, answers that come in
// parts, extensions, and what servers might read in more than one way.

import { hash } from 'node:crypto'
import { type GraphqlDocument, readGraphql } from '../http/graphql.ts'
import { type JsonValue, formatCanonical, readJson } from '../http/json.ts'
import { digestOf } from './digest.ts'

export type GraphqlRefusal = 'mutation' | 'subscription' | 'graphql-batch' | 'unclear-graphql' | 'unknown-document'

/** Documents by their hashes. */
const MAX_DOCUMENTS = 4096
/** In a document that is remembered. */
const MAX_OPERATIONS = 100
const MAX_JSON_DEPTH = 64

interface KnownDocument extends Pick<GraphqlDocument, 'operations' | 'isIncremental'> {
  /** Of its text. */
  readonly digest: string
}

/** Documents that have come in bodies, by their SHA-256 in small letters: the latest MAX_DOCUMENTS, some 500 bytes each. So
 *  each is read once, and known where it is named by its hash alone. */
export class KnownDocuments {
  readonly #byHash = new Map<string, KnownDocument>()

  get(sha256: string): KnownDocument | undefined {
    return this.#byHash.get(sha256)
  }

  /** Answers the document; null: it is none, or has another hash. said: the hash that the client gives it; null: none. */
  read(source: string, said: string | null): KnownDocument | null {
    const sha256 = hash('sha256', source)
    if (said !== null && said !== sha256) return null
    const known = this.#byHash.get(sha256)
    if (known !== undefined) return known
    const document = readGraphql(source)
    if (document === null || document.operations.length > MAX_OPERATIONS) return null
    const { operations, isIncremental } = document
    const read = { digest: digestOf([document.text]), operations, isIncremental }
    const oldest = this.#byHash.size < MAX_DOCUMENTS ? undefined : this.#byHash.keys().next()
    if (oldest?.done === false) this.#byHash.delete(oldest.value)
    this.#byHash.set(sha256, read)
    return read
  }
}

/** A request as it is written. */
interface Asked {
  readonly source: string | null
  readonly operationName: string | null
  readonly variables: JsonValue
  /** In small letters. */
  readonly sha256: string | null
}

/** What the answer to a JSON body is told apart by, as texts; or why it is not to be told. */
export function graphqlTexts(body: JsonValue, documents: KnownDocuments): readonly string[] | GraphqlRefusal {
  if (Array.isArray(body)) {
    const each = new Set(body.map((element) => graphqlTexts(element, documents)))
    if (each.has('mutation')) return 'mutation'
    return each.has('unclear-graphql') ? 'unclear-graphql' : 'graphql-batch'
  }
  const asked = body instanceof Map ? askedBy(body) : null
  if (asked === null) return 'unclear-graphql'
  const { source, operationName, variables, sha256 } = asked
  const document = source === null ? documents.get(sha256 ?? '') : documents.read(source, sha256)
  if (document === undefined) return 'unknown-document'
  const refusal = document === null ? 'unclear-graphql' : refusalOf(document, operationName)
  if (document === null || refusal !== null) return refusal ?? 'unclear-graphql'
  return [document.digest, operationName ?? '', formatCanonical(variables)]
}

/** Why an operation of a document is not a query beyond doubt; null: it is. */
function refusalOf(
  { operations, isIncremental }: Pick<KnownDocument, 'operations' | 'isIncremental'>,
  operationName: string | null,
): GraphqlRefusal | null {
  // Whichever is asked for: what is answered from the cache must not have a change in it that some server might carry out.
  for (const type of ['mutation', 'subscription'] as const) {
    if (operations.some((operation) => operation.type === type)) return type
  }
  const named = operations.filter(({ name }) => operationName === null || name === operationName)
  return named.length === 1 && !isIncremental ? null : 'unclear-graphql'
}

const MEMBERS: ReadonlySet<string> = new Set(['query', 'operationName', 'variables', 'extensions'])
const NAME = /^[_A-Za-z][_0-9A-Za-z]*$/
const SHA256 = /^[0-9a-f]{64}$/i

/** The members of a request; null says of each what leaving it out says (GraphQL over HTTP, §5.1). null: there are others, or of other
 *  types. */
function askedBy(members: ReadonlyMap<string, JsonValue>): Asked | null {
  for (const name of members.keys()) if (!MEMBERS.has(name)) return null
  const source = members.get('query') ?? null
  const operationName = members.get('operationName') ?? null
  const variables = members.get('variables') ?? new Map<string, JsonValue>()
  const sha256 = hashIn(members.get('extensions') ?? null)
  const isNamed = operationName === null || (typeof operationName === 'string' && NAME.test(operationName))
  const isSource = typeof source === 'string' || (source === null && sha256 !== null)
  if (!isNamed || !isSource || !(variables instanceof Map) || sha256 === undefined) return null
  return { source, operationName, variables, sha256 }
}

/** undefined: there is something else. */
function hashIn(extensions: JsonValue): string | null | undefined {
  if (extensions === null) return null
  if (!(extensions instanceof Map) || extensions.size > 1) return undefined
  if (extensions.size === 0) return null
  const persisted = extensions.get('persistedQuery')
  if (!(persisted instanceof Map) || persisted.size !== 2 || persisted.get('version') !== 1) return undefined
  const sha256 = persisted.get('sha256Hash')
  return typeof sha256 === 'string' && SHA256.test(sha256) ? sha256.toLowerCase() : undefined
}

// ---- in a URL ----

/** The query of a URL as keys have it, with what a request of GraphQL is made of behind all else, in one spelling; or why
 *  a request with it is not looked up. query: '' or `?` and the raw query. isBody: the request is in the body, so that
 *  none may be here, of which nobody knows whether it counts. */
export function graphqlQuery(
  query: string,
  isBody: boolean,
  documents: KnownDocuments,
): { readonly query: string } | GraphqlRefusal {
  if (query === '') return { query }
  // Some servers take it for another `&`.
  if (query.includes(';')) return 'unclear-graphql'
  const others: string[] = []
  const members = new Map<string, JsonValue>()
  for (const text of query.slice(1).split('&')) {
    const equals = text.indexOf('=')
    const name = decodeText(equals < 0 ? text : text.slice(0, equals))
    if (name === null) return 'unclear-graphql'
    if (!MEMBERS_FOLDED.has(foldName(name))) {
      if (text !== '') others.push(text)
      continue
    }
    const value = equals < 0 ? null : valueOf(name, text.slice(equals + 1))
    if (isBody || value === null || members.has(name)) return 'unclear-graphql'
    members.set(name, value)
  }
  if (members.size > 0) {
    const asked = askedBy(members)
    const document = asked === null ? 'unclear-graphql' : documentByUrl(asked, documents)
    if (typeof document === 'string') return document
    if (document.text !== null) members.set('query', document.text)
    for (const name of [...members.keys()].sort()) others.push(`${name}=${encoded(members.get(name) ?? null)}`)
  }
  return { query: others.length === 0 ? '' : `?${others.join('&')}` }
}

/** The text of the document that a URL has in it, where it has; or why it is not looked up. */
function documentByUrl(
  { source, operationName, sha256 }: Asked,
  documents: KnownDocuments,
): { readonly text: string | null } | GraphqlRefusal {
  const document = source === null ? documents.get(sha256 ?? '') : readGraphql(source)
  if (document === undefined) return { text: null }
  if (document === null || (source !== null && sha256 !== null && hash('sha256', source) !== sha256)) {
    return 'unclear-graphql'
  }
  return refusalOf(document, operationName) ?? { text: 'text' in document ? document.text : null }
}

/** What servers may take for one of the members: in another case, or as a list. */
const MEMBERS_FOLDED: ReadonlySet<string> = new Set([...MEMBERS].map((name) => name.toLowerCase()))
const foldName = (name: string): string => name.trim().replace(/\[.*$/s, '').toLowerCase()

/** null: nobody can tell. Names in another spelling have no value that is beyond doubt. */
function valueOf(name: string, raw: string): JsonValue {
  const text = decodeText(raw)
  if (text === null || text === '' || !MEMBERS.has(name)) return null
  if (name === 'query' || name === 'operationName') return text
  const json = readJson(Buffer.from(text), { maxDepth: MAX_JSON_DEPTH })
  return json.ok ? json.value : null
}

function decodeText(raw: string): string | null {
  try {
    return decodeURIComponent(raw.replaceAll('+', ' '))
  } catch {
    return null
  }
}

const encoded = (value: JsonValue): string =>
  encodeURIComponent(typeof value === 'string' ? value : formatCanonical(value))
