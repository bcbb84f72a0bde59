// GraphQL documents (GraphQL, September 2025, §2) as far as a cache has to know them: what is left of one without all that
// means nothing (§2.1.7: white space, commas, comments, byte order marks), and which operations are in it.
//
// What is read is less than the language: definitions, their heads, and brackets that match. Whether fields are there and
// arguments right is for the server to say. But whatever a server might take for another document is no document here:
// control characters, line ends that are some servers' only, definitions that are no operations or fragments.

export interface GraphqlOperation {
  readonly type: 'query' | 'mutation' | 'subscription'
  readonly name: string | null
}

export interface GraphqlDocument {
  /** Its tokens as they are written, with a blank between each two: the same for documents that differ in nothing else. */
  readonly text: string
  readonly operations: readonly GraphqlOperation[]
  /** Parts of the answer may come later, or all of it in parts: @defer or @stream. */
  readonly isIncremental: boolean
}

/** In one document. */
const MAX_TOKENS = 20_000

/** Reads a document; null for what is none beyond doubt. source: well-formed Unicode. Takes time linear in its length. */
export function readGraphql(source: string): GraphqlDocument | null {
  const tokens = tokensOf(source)
  const operations = tokens === null ? null : operationsOf(tokens)
  if (tokens === null || operations === null) return null
  const isIncremental = tokens.some((token, i) => token === '@' && LATER.has(tokens[i + 1] ?? ''))
  return { text: tokens.join(' '), operations, isIncremental }
}

const LATER: ReadonlySet<string> = new Set(['defer', 'stream'])

// ---- tokens ----

/** §2.1.2 to §2.1.7. A comment ends with its line; with a character that some take for the end of a line, the document. */
// oxlint-disable-next-line no-control-regex, no-irregular-whitespace
const IGNORED = /(?:[\t\n\r ,\uFEFF]|#[^\u0000-\u0008\n-\u001F\u007F-\u009F\u2028\u2029]*)*/y
/** Names, punctuators, numbers (§2.1.8, §2.1.9, §2.9.1, §2.9.2). */
const TOKEN = /[_A-Za-z][_0-9A-Za-z]*|\.\.\.|[!$&():=@[\]{|}]|-?(?:0|[1-9]\d*)(?:\.\d+)?(?:[eE][+-]?\d+)?(?![.\w])/y
const ESCAPE = /\\(?:["\\/bfnrt]|u[0-9A-Fa-f]{4}|u\{[0-9A-Fa-f]{1,6}\})/y

function tokensOf(source: string): readonly string[] | null {
  const tokens: string[] = []
  let at = endOf(IGNORED, source, 0)
  while (at < source.length) {
    const end = source[at] === '"' ? endOfString(source, at) : endOf(TOKEN, source, at)
    if (end < 0 || tokens.push(source.slice(at, end)) > MAX_TOKENS) return null
    at = endOf(IGNORED, source, end)
  }
  return tokens
}

function endOf(pattern: RegExp, source: string, at: number): number {
  pattern.lastIndex = at
  return pattern.test(source) ? pattern.lastIndex : -1
}

/** §2.9.4. -1: it does not end, or not as it should. */
function endOfString(source: string, start: number): number {
  if (source.startsWith('"""', start)) return endOfBlock(source, start)
  let at = start + 1
  while (at < source.length) {
    const unit = source.charCodeAt(at)
    if (unit === 0x22) return at + 1
    if (unit < 0x20 && unit !== 0x09) return -1
    at = unit === 0x5c ? endOf(ESCAPE, source, at) : at + 1
    if (at < 0) return -1
  }
  return -1
}

/** In a block, a backslash means something only before three quotes. */
function endOfBlock(source: string, start: number): number {
  let from = start + 3
  for (;;) {
    const at = source.indexOf('"""', from)
    if (at < 0) return -1
    if (at === from || source[at - 1] !== '\\') return at + 3
    from = at + 3
  }
}

// ---- definitions ----

const NAME = /^[_A-Za-z]/
const isName = (token: string | undefined): boolean => token !== undefined && NAME.test(token)

/** §2.2 to §2.8. null: something else is there. */
function operationsOf(tokens: readonly string[]): readonly GraphqlOperation[] | null {
  const operations: GraphqlOperation[] = []
  let at = 0
  while (at < tokens.length) {
    const first = tokens[at]
    if (first === '{') operations.push({ type: 'query', name: null })
    else if (first === 'query' || first === 'mutation' || first === 'subscription') {
      const name = isName(tokens[at + 1]) ? (tokens[at + 1] as string) : null
      operations.push({ type: first, name })
      at += name === null ? 1 : 2
      if (tokens[at] === '(') at = endOfGroup(tokens, at)
    } else if (first === 'fragment' && isName(tokens[at + 1]) && tokens[at + 1] !== 'on') {
      if (tokens[at + 2] !== 'on' || !isName(tokens[at + 3])) return null
      at += 4
    } else return null
    at = endOfDirectives(tokens, at)
    if (tokens[at] !== '{') return null
    at = endOfGroup(tokens, at)
    if (at < 0) return null
  }
  // Among several, one without a name could not be asked for.
  const isClear = operations.length === 1 || operations.every(({ name }) => name !== null)
  return operations.length > 0 && isClear ? operations : null
}

/** -1 where they are not written as they should be. */
function endOfDirectives(tokens: readonly string[], start: number): number {
  let at = start
  while (at >= 0 && tokens[at] === '@') {
    if (!isName(tokens[at + 1])) return -1
    at += 2
    if (tokens[at] === '(') at = endOfGroup(tokens, at)
  }
  return at
}

const CLOSING: ReadonlyMap<string, string> = new Map([
  ['(', ')'],
  ['[', ']'],
  ['{', '}'],
])

/** Behind the bracket that closes the one at `start`; -1: there is none. */
function endOfGroup(tokens: readonly string[], start: number): number {
  const open: string[] = []
  for (let at = start; at < tokens.length; at++) {
    const token = tokens[at] as string
    const closing = CLOSING.get(token)
    if (closing !== undefined) open.push(closing)
    else if (token === ')' || token === ']' || token === '}') {
      if (open.pop() !== token) return -1
      if (open.length === 0) return at + 1
    }
  }
  return -1
}
