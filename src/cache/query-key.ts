// Which parameters of a query are in a key. A parameter is left out only where no server can take it for one that stays
// in: a parameter that the backend reads and the key lacks would be the answer of one client to all others.
//
// Servers differ in what they take for a name: escapes decoded, case ignored (ASP.NET), `.`, blanks and a `[` that nothing
// closes as `_`, all behind a NUL left out, `x[]` as `x` (PHP), `x[y]` as `x.y` (ASP.NET). `only` keeps whatever any of them
// could mean by a listed name; `ignore` leaves out what is spelt as listed. A query that some split in another way, at `;`,
// whose escapes cannot be decoded, with control characters in a name, or with more parameters than anybody needs stays as it
// is.

export interface QueryKeyOptions {
  /** Names, or beginnings of names with `*` at their end. */
  readonly only?: readonly string[] | undefined
  readonly ignore?: readonly string[] | undefined
}

const MAX_PARAMETERS = 500

/** The query for a key. query: '' or `?` and the raw query; so is the answer. */
export type QueryRule = (query: string) => string

/** Compiles `key.query`, of which one list is given. Without a list all parameters stay. The rest is sorted by name; the
 *  values of one name, in all its spellings, keep their order. */
export function compileQueryRule({ only, ignore = [] }: QueryKeyOptions): QueryRule {
  const isWanted = only === undefined ? () => true : compileMeaning(only)
  const isIgnored = compileNames(ignore)
  return (query) => {
    if (query === '' || query.includes(';')) return query
    const parameters = query.slice(1).split('&', MAX_PARAMETERS + 1)
    if (parameters.length > MAX_PARAMETERS) return query
    const kept: { readonly name: string; readonly text: string }[] = []
    for (const text of parameters) {
      if (text === '') continue
      const equals = text.indexOf('=')
      const rawName = equals < 0 ? text : text.slice(0, equals)
      const name = decodeName(rawName)
      if (name === null) return query
      if (isWanted(name) && !isIgnored(rawName)) kept.push({ name, text })
    }
    if (kept.length === 0) return ''
    const nameOf = kept.every(({ name }) => PLAIN_NAME.test(name)) ? lowerCase : stemOf
    const sorted = kept.map(({ name, text }) => ({ by: nameOf(name), text }))
    sorted.sort((a, b) => (a.by < b.by ? -1 : a.by > b.by ? 1 : 0))
    return `?${sorted.map(({ text }) => text).join('&')}`
  }
}

/** A URL with its query in each spelling under which some route may have stored it, its own first. */
export function keySpellings(url: string, rules: readonly QueryRule[]): readonly string[] {
  const mark = url.indexOf('?')
  if (mark < 0 || rules.length === 0) return [url]
  const [before, query] = [url.slice(0, mark), url.slice(mark)]
  return [...new Set([url, ...rules.map((rule) => before + rule(query))])]
}

/** A test for names. */
function compileNames(listed: readonly string[]): (name: string) => boolean {
  const exact = new Set(listed.filter((name) => !name.endsWith('*')))
  const beginnings = listed.filter((name) => name.endsWith('*')).map((name) => name.slice(0, -1))
  return (name) => exact.has(name) || beginnings.some((beginning) => name.startsWith(beginning))
}

/** A test for names, decoded, that some server takes for a listed one, or for a part of it. */
export function compileMeaning(listed: readonly string[]): (name: string) => boolean {
  const isListed = compileNames(
    listed.flatMap((name) => {
      const end = name.endsWith('*') ? '*' : ''
      return meaningsOf(end === '' ? name : name.slice(0, -1)).map((meaning) => meaning + end)
    }),
  )
  return (name) => (PLAIN_NAME.test(name) ? isListed(name.toLowerCase()) : meaningsOf(name).some(isListed))
}

/** Spelt alike by all servers but for its case. */
const PLAIN_NAME = /^[\w-]+$/

const lowerCase = (name: string): string => name.toLowerCase()

/** Of letters in any script, as those have it who compare capitals. */
const lowered = (name: string): string => name.toUpperCase().toLowerCase()

/** What servers may take a name for: with or without what stands in brackets or behind a dot. */
function meaningsOf(name: string): readonly string[] {
  if (PLAIN_NAME.test(name)) return [name.toLowerCase()]
  const trimmed = lowered(name.trim())
  const spelt = [trimmed, trimmed.replace(/(?<=.)\[.*$/s, ''), trimmed.replace(/(?<=.)[.[ ].*$/s, '')]
  return spelt.map((each) => each.replaceAll(/[.[ ]/g, '_'))
}

/** The same for all names that some server takes for one. */
const stemOf = (name: string): string => lowered(name.trim()).replace(/[._[ ].*$/s, '')

function decodeName(raw: string): string | null {
  if (!/[%+]/.test(raw)) return raw
  try {
    const name = decodeURIComponent(raw.replaceAll('+', ' '))
    return /\p{Cc}/u.test(name) ? null : name
  } catch {
    return null
  }
}
