// Which parameters of a query are in a key. A parameter is left out only where no server can take it for one that stays
// in: a parameter that the backend reads and the key lacks would be the answer of one client to all others.
//
// Servers differ in what they take for a name: escapes decoded, case ignored (ASP.NET), `.` and blanks as `_`, `x[]` as `x`
// (PHP). `only` keeps whatever any of them could mean by a listed name; `ignore` leaves out what is spelt as listed.
// A query that some split in another way, at `;`, or whose escapes cannot be decoded, stays as it is.

export interface QueryKeyOptions {
  /** Names, or beginnings of names with `*` at their end. */
  readonly only?: readonly string[] | undefined
  readonly ignore?: readonly string[] | undefined
}

/** The query for a key. query: '' or `?` and the raw query; so is the answer. */
export type QueryRule = (query: string) => string

/** Compiles `key.query`, of which one list is given. Without a list all parameters stay. The rest is sorted by name; the
 *  values of one name, in all its spellings, keep their order. */
export function compileQueryRule({ only, ignore = [] }: QueryKeyOptions): QueryRule {
  const isWanted = only === undefined ? () => true : compileNames(only.map(foldName))
  const isIgnored = compileNames(ignore)
  return (query) => {
    if (query === '' || query.includes(';')) return query
    const kept: { readonly folded: string; readonly text: string }[] = []
    for (const text of query.slice(1).split('&')) {
      if (text === '') continue
      const equals = text.indexOf('=')
      const rawName = equals < 0 ? text : text.slice(0, equals)
      const name = decodeName(rawName)
      if (name === null) return query
      const folded = foldName(name)
      if (isWanted(folded) && !isIgnored(rawName)) kept.push({ folded, text })
    }
    if (kept.length === 0) return ''
    kept.sort((a, b) => (a.folded < b.folded ? -1 : a.folded > b.folded ? 1 : 0))
    return `?${kept.map(({ text }) => text).join('&')}`
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

/** One spelling for all that some server takes for the same name. */
const foldName = (name: string): string =>
  name
    .trim()
    .replace(/(?<=.)\[.*$/s, '')
    .replaceAll(/[. ]/g, '_')
    .toLowerCase()

function decodeName(raw: string): string | null {
  if (!/[%+]/.test(raw)) return raw
  try {
    return decodeURIComponent(raw.replaceAll('+', ' '))
  } catch {
    return null
  }
}
