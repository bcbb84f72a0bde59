// From the text of a file to a frozen GatewayConfig, or to every fault in it at once, each with its position.
// The one place that reads YAML: version 1.2, one document, no custom tags, no merge keys.
//
// document -> values with `${...}` replaced -> schema (shape, units) and references (names, contradictions), both on
// the same values, so that one run tells all. A value that could not be made out is told once and passed over after.
// Bounds: MAX_FILE_BYTES of text, MAX_DEPTH levels, MAX_ALIASED_NODES from aliases, so no file can exhaust the process.

import { readFileSync, statSync } from 'node:fs'
import { dirname, resolve } from 'node:path'
import { LineCounter, isAlias, isMap, isScalar, isSeq, parseDocument } from 'yaml'
import type { Alias, Document, ErrorCode, Node, Pair, Scalar, YAMLError } from 'yaml'
import { formatSize } from '../core/decode.ts'
import { isSecret, toIssue } from './issues.ts'
import type { ConfigIssue, Finding, Position } from './issues.ts'
import { formatPath, isMapping, quote, valueAt } from './path.ts'
import type { Path } from './path.ts'
import { checkReferences } from './references.ts'
import { explainRefusals } from './refusals.ts'
import { gatewaySchema } from './schema.ts'
import type { GatewayConfig } from './schema.ts'
import { substitute } from './substitute.ts'
import type { Substitution } from './substitute.ts'

const MAX_FILE_BYTES = 8 * 1024 ** 2
const MAX_REFERENCED_FILE_BYTES = 64 * 1024
const MAX_DEPTH = 64
const MAX_ALIASED_NODES = 100_000

export type LoadResult =
  | {
      readonly ok: true
      readonly config: GatewayConfig
      /** What the file says, references replaced, defaults not filled in. Plain data fit to be shown: every secret
       *  is `(hidden)`. Made anew each time that somebody asks. */
      readonly shown: () => unknown
    }
  | { readonly ok: false; readonly issues: ConfigIssue[] }

/** Reads and loads a file; one that cannot be read is an issue like any other. Never throws. */
export function readConfig(file: string, env: NodeJS.ProcessEnv): LoadResult {
  let text: string
  try {
    text = readBounded(file, MAX_FILE_BYTES)
  } catch (error) {
    const unplaced = { file, line: 0, column: 0, path: '' }
    const cure = 'name another with -c FILE'
    return { ok: false, issues: [{ ...unplaced, expected: 'a readable file', got: messageOf(error), cure }] }
  }
  return loadConfig(text, file, env)
}

/** Decodes the text of a file. file: its name in messages; a relative `${file:path}` is looked for beside it.
 *  Issues are sorted by position. Never throws. */
export function loadConfig(text: string, file: string, env: NodeJS.ProcessEnv): LoadResult {
  const lines = new LineCounter()
  const locate = (offset: number): Position => {
    const { line, col } = lines.linePos(offset)
    return { file, line: Math.max(1, line), column: Math.max(1, col) }
  }
  let document: ConfigDocument
  try {
    const yaml = parseYaml(text, lines)
    const faults = [...yaml.errors, ...yaml.warnings]
    if (faults.length > 0) return { ok: false, issues: syntaxIssues(faults, text, locate) }
    const readText = (path: string): string => readBounded(resolve(dirname(file), path), MAX_REFERENCED_FILE_BYTES)
    document = new ConfigDocument(yaml.contents, (scalar) => substitute(scalar, env, readText))
  } catch (error) {
    const position = error instanceof Exhausted ? locate(error.offset) : { file, line: 0, column: 0 }
    return { ok: false, issues: [{ ...position, path: '', expected: DOCUMENT, got: messageOf(error), cure: null }] }
  }
  const parsed = gatewaySchema.safeParse(document.raw)
  const refusals = parsed.success ? [] : explainRefusals(gatewaySchema, parsed.error, document.raw)
  const issues = new Map<string, ConfigIssue>()
  for (const finding of [...document.findings, ...checkReferences(document.raw), ...refusals]) {
    const place = document.placeOf(finding)
    if (place.isBroken) continue
    const position = locate(finding.at === 'key' ? place.keyOffset : place.offset)
    const issue = toIssue(finding, position, valueAt(document.raw, finding.path), place.isSubstituted)
    // One fault in an anchored part is reached by each of its aliases.
    const identity = JSON.stringify([issue.line, issue.column, issue.expected, issue.got, issue.cure])
    if (!issues.has(identity)) issues.set(identity, issue)
  }
  if (issues.size > 0 || !parsed.success) return { ok: false, issues: [...issues.values()].sort(byPosition) }
  return { ok: true, config: deepFreeze(parsed.data), shown: shownLater(document) }
}

function parseYaml(text: string, lineCounter: LineCounter): Document.Parsed {
  return parseDocument(text, {
    version: '1.2',
    // Named, so that a %YAML 1.1 directive cannot turn `no` into false.
    schema: 'core',
    resolveKnownTags: false,
    // Told by ConfigDocument, in the words of all other messages.
    uniqueKeys: false,
    prettyErrors: false,
    lineCounter,
  })
}

const byPosition = (a: Position, b: Position): number => a.line - b.line || a.column - b.column

const DOCUMENT = 'one YAML 1.2 document'

/** The first fault of each line: those after it mostly follow from it. */
function syntaxIssues(faults: readonly YAMLError[], text: string, locate: (offset: number) => Position): ConfigIssue[] {
  const texts = text.split('\n')
  const issues = new Map<number, ConfigIssue>()
  const exhausted = faults.find((fault) => fault.code === 'RESOURCE_EXHAUSTION')
  for (const fault of exhausted === undefined ? faults : [exhausted]) {
    const position = locate(fault.pos[0])
    if (issues.has(position.line)) continue
    const { got, cure } = syntaxWords(fault, texts[position.line - 1] ?? '')
    issues.set(position.line, { ...position, path: '', expected: DOCUMENT, got, cure })
  }
  return [...issues.values()].sort(byPosition)
}

/** What to say of the faults that have better words than the parser's. */
const SYNTAX: Partial<Record<ErrorCode, { readonly got?: string; readonly cure: string | null }>> = {
  MULTIPLE_DOCS: { got: 'a second one', cure: 'remove the --- between them' },
  RESOURCE_EXHAUSTION: { got: 'too many levels', cure: null },
  TAB_AS_INDENT: { cure: 'indent with spaces' },
  TAG_RESOLVE_FAILED: { cure: 'remove the tag' },
}

function syntaxWords(fault: YAMLError, line: string): { got: string; cure: string | null } {
  const words = SYNTAX[fault.code] ?? { cure: line.includes('${') ? 'put quotes around a value with ${...}' : null }
  // Some messages end in a piece of the file, which may be a secret.
  return { got: `a syntax error: ${fault.message.replace(/: "[^]{3,}$/, '')}`, ...words }
}

/** Where an entry stands; of one that is absent, where the mapping stands that should have it. */
interface Place {
  /** Index into the text. */
  readonly offset: number
  readonly keyOffset: number
  /** The value holds something that came from the environment or from a file. */
  readonly isSubstituted: boolean
  /** The value, or what it is in, could not be made out and has been told. */
  readonly isBroken: boolean
}

type YamlPair = Pair<Node, Node | null>

/** The document would take more than it is given. */
class Exhausted extends Error {
  readonly offset: number
  constructor(message: string, node: Node) {
    super(message)
    this.offset = startOf(node) ?? 0
  }
}

/** The values of a YAML document, and where each of them stands. */
class ConfigDocument {
  /** Plain data; undefined where a value could not be made out. */
  readonly raw: unknown
  readonly #root: Node | null
  readonly #substitute: (scalar: string) => Substitution
  readonly #anchors = new Map<string, Node>()
  readonly #targets = new Map<Alias, Node>()
  readonly #own = new Map<Finding, Place>()
  /** Paths as text, of values that hold something from outside. */
  readonly substituted = new Set<string>()
  readonly #broken = new Set<string>()
  #aliasDepth = 0
  #aliasedNodes = 0

  constructor(root: Node | null, substitute: (scalar: string) => Substitution) {
    this.#root = root
    this.#substitute = substitute
    this.raw = this.#build(root, [])
  }

  /** What is wrong before any schema is asked. */
  get findings(): Finding[] {
    return [...this.#own.keys()]
  }

  placeOf(finding: Finding): Place {
    const own = this.#own.get(finding)
    if (own !== undefined) return own
    let node = this.#root
    let offset = startOf(node) ?? 0
    let keyOffset = offset
    let isBroken = this.#broken.has('')
    for (const [depth, step] of finding.path.entries()) {
      const target = isAlias(node) ? (this.#targets.get(node) ?? null) : node
      if (isMap(target)) {
        const pair = (target.items as YamlPair[]).find(({ key }) => keyOf(key) === step)
        if (pair === undefined) return { offset: keyOffset, keyOffset, isSubstituted: false, isBroken }
        node = pair.value
        keyOffset = startOf(pair.key) ?? keyOffset
        // An empty value has no place of its own worth pointing at.
        offset =
          isScalar(node) && node.source === '' && node.type === 'PLAIN' ? keyOffset : (startOf(node) ?? keyOffset)
      } else {
        node = isSeq(target) ? ((target.items[Number(step)] as Node | undefined) ?? null) : null
        offset = keyOffset = startOf(node) ?? keyOffset
      }
      isBroken ||= this.#broken.has(formatPath(finding.path.slice(0, depth + 1)))
    }
    return { offset, keyOffset, isSubstituted: this.substituted.has(formatPath(finding.path)), isBroken }
  }

  #build(node: Node | null, path: Path): unknown {
    if (node === null) return null
    if (this.#aliasDepth > 0) this.#aliasedNodes++
    if (isAlias(node)) return this.#buildAlias(node, path)
    // Inside an alias the anchors are old acquaintances, and must not hide a later one of the same name.
    if (node.anchor !== undefined && this.#aliasDepth === 0) this.#anchors.set(node.anchor, node)
    if (isScalar(node)) return this.#buildScalar(node, path)
    if (path.length >= MAX_DEPTH) throw new Exhausted(`more than ${MAX_DEPTH} levels, or an alias of itself`, node)
    if (isSeq(node)) return node.items.map((item, i) => this.#build(item as Node | null, [...path, i]))
    return isMap(node) ? this.#buildMapping(node.items as YamlPair[], path) : null
  }

  #buildMapping(pairs: readonly YamlPair[], path: Path): Record<string, unknown> {
    const values = new Map<string, unknown>()
    for (const pair of pairs) {
      const key = keyOf(pair.key)
      const at = [...path, key]
      if (key === '__proto__') this.#tell(pair.key, at, 'unknown key "__proto__"')
      else if (values.has(key)) this.#tell(pair.key, at, `the key ${quote(key)} a second time`, 'remove one')
      else values.set(key, this.#build(pair.value, at))
    }
    return Object.fromEntries(values)
  }

  #buildAlias(alias: Alias, path: Path): unknown {
    const target = this.#targets.get(alias) ?? this.#anchors.get(alias.source)
    if (target === undefined) return this.#giveUp(alias, path, `no anchor ${quote(alias.source)} before this alias`)
    if (this.#aliasedNodes > MAX_ALIASED_NODES) {
      throw new Exhausted(`more than ${MAX_ALIASED_NODES} values through aliases`, alias)
    }
    this.#targets.set(alias, target)
    this.#aliasDepth++
    const value = this.#build(target, path)
    this.#aliasDepth--
    return value
  }

  #buildScalar(node: Scalar, path: Path): unknown {
    if (typeof node.value !== 'string') return node.value
    const result = this.#substitute(node.value)
    if (!result.ok) return this.#giveUp(node, path, result.got, result.cure, result.expected)
    if (result.isSubstituted) this.substituted.add(formatPath(path))
    return result.text
  }

  /** Nothing more is said of what is at or below `path`. */
  #giveUp(node: Node, path: Path, got: string, cure: string | null = null, expected: string | null = null): undefined {
    this.#broken.add(formatPath(path))
    this.#tell(node, path, got, cure, expected)
    return undefined
  }

  #tell(node: Node, path: Path, got: string, cure: string | null = null, expected: string | null = null): void {
    const offset = startOf(node) ?? 0
    this.#own.set({ path, at: 'value', expected, got, cure }, { ...NOWHERE, offset, keyOffset: offset })
  }
}

const shownLater =
  ({ raw, substituted }: ConfigDocument) =>
  (): unknown =>
    withoutSecrets(raw, substituted)

/** The values without secrets: those by name, and header values that the file itself keeps out of sight. Outside of
 *  ConfigDocument, since this is kept and the document is not. */
function withoutSecrets(raw: unknown, substituted: ReadonlySet<string>): unknown {
  const show = (value: unknown, path: Path): unknown => {
    if (Array.isArray(value)) return (value as unknown[]).map((item, i) => show(item, [...path, i]))
    if (isMapping(value)) {
      return Object.fromEntries(Object.entries(value).map(([key, item]) => [key, show(item, [...path, key])]))
    }
    const isKeptApart = path.includes('headers') && substituted.has(formatPath(path))
    return value !== '' && (isSecret(path, value) || isKeptApart) ? '(hidden)' : value
  }
  return show(raw, [])
}

const NOWHERE: Place = { offset: 0, keyOffset: 0, isSubstituted: false, isBroken: false }

const startOf = (node: Node | null | undefined): number | null => node?.range?.[0] ?? null

/** A key as it is written: `200` and `0x10` stay what they look like. Only plain and quoted texts are keys. */
function keyOf(key: Node): string {
  if (isScalar(key)) return typeof key.value === 'string' ? key.value : (key.source ?? String(key.value))
  return isAlias(key) ? `*${key.source}` : '?'
}

function readBounded(path: string, maxBytes: number): string {
  const stats = statSync(path, { throwIfNoEntry: false })
  if (stats === undefined) throw new Error('no such file')
  if (!stats.isFile()) throw new Error(stats.isDirectory() ? 'a folder' : 'something else')
  if (stats.size > maxBytes) throw new Error(`more than ${formatSize(maxBytes)}`)
  return readFileSync(path, 'utf8')
}

const messageOf = (error: unknown): string => (error instanceof Error ? error.message : String(error))

/** Freezes plain data all the way down. Objects of a class, Maps among them, are left to guard themselves. */
function deepFreeze<T>(value: T): T {
  if (Array.isArray(value) || (isMapping(value) && PLAIN.has(Object.getPrototypeOf(value)))) {
    for (const item of Object.values(value)) deepFreeze(item)
    Object.freeze(value)
  }
  return value
}

const PLAIN: ReadonlySet<unknown> = new Set([Object.prototype, null])
