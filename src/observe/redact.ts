// Keeps secrets in a query out of the log: the values of the named parameters become `***`. Names are compared as a
// backend would read them, so case, percent-escapes and the old `;` separator hide nothing.

export type Redact = (query: string) => string

const AMPERSAND = 0x26
const SEMICOLON = 0x3b
const EQUALS = 0x3d

/** names: query parameters, in any case. The result takes '' or '?' and a raw query; what it need not change it returns as it is. */
export function createRedact(names: readonly string[]): Redact {
  const secret = new Set(names.map((name) => name.toLowerCase()))
  if (secret.size === 0) return (query) => query

  const mayHide = new RegExp(String.raw`[%+\x80-\uffff]|[?&;](?:${[...secret].map(literally).join('|')})=`, 'i')

  return (query) => {
    if (!mayHide.test(query)) return query
    let redacted = ''
    let copied = 0
    let start = 1
    let equals = -1
    for (let i = 1; i <= query.length; i++) {
      const code = query.charCodeAt(i)
      if (code === EQUALS && equals < 0) equals = i
      if (code !== AMPERSAND && code !== SEMICOLON && i < query.length) continue
      if (equals >= 0 && equals < i - 1 && secret.has(readName(query.slice(start, equals)))) {
        redacted += `${query.slice(copied, equals + 1)}***`
        copied = i
      }
      start = i + 1
      equals = -1
    }
    return copied === 0 ? query : redacted + query.slice(copied)
  }
}

/** Bad escapes stay as they are: a reader that is more lenient than this one would not find the name either. */
function readName(raw: string): string {
  if (!ESCAPED.test(raw)) return raw.toLowerCase()
  return raw
    .replaceAll('+', ' ')
    .replaceAll(/%[0-7][0-9a-f]/gi, (escape) => String.fromCharCode(Number.parseInt(escape.slice(1), 16)))
    .toLowerCase()
    .trim()
}

const ESCAPED = /[%+]/

/** A text as a pattern that matches it alone. */
const literally = (text: string): string =>
  text.replaceAll(/[^a-z0-9_]/g, (unit) => `\\u${unit.charCodeAt(0).toString(16).padStart(4, '0')}`)
