// Which route answers a request: the most specific one that matches. Host first (exact over `*.`, longer over shorter,
// none last), then path (segment by segment: static over `:name` over `*`), then a route with methods over one without.
//
// Routes are compiled to one trie per host, keyed by whole path segments, so a look-up costs the depth of its path and
// the labels of its host, not the number of routes. A branch that leads nowhere is left again for the next less
// specific one; a trie has no more nodes than its routes have segments, which bounds that. Ties are refused at load
// (config/references.ts).
//
// What stands behind a `;` in a segment (RFC 3986 §3.3) is no part of it for servlet containers, and would be a way past a
// route: `/admin;x/users` is `/admin/users` there. So routes are matched without it; only one that is written with a `;`
// takes it literally. The path itself stays as it is, for keys and the wire.

export interface RoutePattern {
  /** Lower case; `*.example.com` for all hosts below; null for any. */
  readonly host: string | null
  /** `/x`, `/x/*`, `/x/:name/y`. Its escapes are spelt as http/target.ts spells those of a request. */
  readonly path: string
  /** null: all. */
  readonly methods: readonly string[] | null
}

export interface RouteMatch<R> {
  readonly route: R
  /** Values of `:name` segments, as they stand in the normalised path without its parameters; null when the pattern has none. */
  readonly params: ReadonlyMap<string, string> | null
}

export interface Router<R> {
  /** The route, or the methods that the path would have (none: there is no such path here). */
  match(host: string, method: string, path: string): RouteMatch<R> | readonly string[]
  /** False when every route names a host and none of them is this one: the request is misdirected. */
  knowsHost(host: string): boolean
}

interface Candidate<R> {
  readonly route: R
  /** It is written with a `;`. */
  readonly isLiteral: boolean
  readonly methods: ReadonlySet<string> | null
  readonly paramNames: readonly string[]
}

interface Node<R> {
  readonly statics: Map<string, Node<R>>
  param: Node<R> | null
  /** Routes that end here, and routes that end here with `/*`; those with methods first. */
  exact: Candidate<R>[]
  rest: Candidate<R>[]
}

const createNode = <R>(): Node<R> => ({ statics: new Map(), param: null, exact: [], rest: [] })

export function compileRouter<R>(routes: readonly (RoutePattern & { readonly route: R })[]): Router<R> {
  /** Tries by host; `*.example.com` stands under `.example.com`, which no host can be. */
  const byHost = new Map<string, Node<R>>()
  /** The trie of routes that name no host, alone. */
  const anyHost: Node<R>[] = []

  for (const { host, path, methods, route } of routes) {
    insert(rootFor(host), path, methods === null ? null : new Set(methods), route)
  }

  function rootFor(host: string | null): Node<R> {
    if (host === null) return (anyHost[0] ??= createNode<R>())
    const key = host.startsWith('*.') ? host.slice(1) : host
    const root = byHost.get(key) ?? createNode<R>()
    byHost.set(key, root)
    return root
  }

  /** The tries that may answer for a host, most specific first. The port, if any, does not count. */
  function rootsFor(hostAndPort: string): readonly Node<R>[] {
    if (byHost.size === 0) return anyHost
    const host = hostAndPort.replace(/:\d+$/, '')
    const roots: Node<R>[] = []
    const exact = byHost.get(host)
    if (exact !== undefined) roots.push(exact)
    for (let dot = host.indexOf('.'); dot !== -1; dot = host.indexOf('.', dot + 1)) {
      const above = byHost.get(host.slice(dot))
      if (above !== undefined) roots.push(above)
    }
    return [...roots, ...anyHost]
  }

  function find(roots: readonly Node<R>[], method: string, path: string, isLiteral: boolean): RouteMatch<R> | null {
    for (const root of roots) {
      const values: string[] = []
      const found = walk(root, path, 1, method, values, null)
      if (found !== null && (found.isLiteral || !isLiteral)) {
        return { route: found.route, params: paramsOf(found, values) }
      }
    }
    return null
  }

  return {
    match(host, method, whole) {
      const roots = rootsFor(host)
      const hasParameters = whole.includes(';') || whole.includes('%3B')
      const literal = hasParameters ? find(roots, method, whole, true) : null
      if (literal !== null) return literal
      const path = hasParameters ? withoutParameters(whole) : whole
      const found = find(roots, method, path, false)
      if (found !== null) return found
      const allowed = new Set<string>()
      for (const root of roots) walk(root, path, 1, method, [], allowed)
      return [...allowed]
    },
    knowsHost: (host) => rootsFor(host).length > 0,
  }
}

/** Some decode a path before they cut its parameters off. */
const withoutParameters = (path: string): string => path.replaceAll(/(?:;|%3B)[^/]*/g, '').replaceAll(/\/{2,}/g, '/')

/** In an order for people: of two patterns that match the same request, the one that answers it comes first. */
export function bySpecificity<R extends RoutePattern>(patterns: readonly R[]): R[] {
  // Each of them is taken apart once: comparisons that did so took a fifth of the time that a plan takes to compile.
  const ranked = patterns.map((pattern) => ({ pattern, rank: rankOf(pattern) }))
  ranked.sort((a, b) => (a.rank < b.rank ? -1 : Number(a.rank > b.rank)))
  return ranked.map(({ pattern }) => pattern)
}

/** Text that sorts as patterns do. No rank of a host or path is the beginning of another, so what follows never decides
 *  too early. */
function rankOf({ host, path, methods }: RoutePattern): string {
  const segments = path.slice(1).split('/')
  return `${rankOfHost(host)}${segments.map(rankOfSegment).join('')}${END}${methods === null ? 1 : 0}`
}

function rankOfHost(host: string | null): string {
  if (host === null) return '2'
  return host.startsWith('*.') ? `1${String.fromCharCode(MAX_CHAR - Math.min(host.length, MAX_CHAR))}` : '0'
}

/** A pattern that has ended comes before one that goes on with `*`, which would match its path too. */
const END = '2'
const rankOfSegment = (segment: string): string => (segment === '*' ? '3' : segment.startsWith(':') ? '1' : '0')

const MAX_CHAR = 0xffff

function insert<R>(root: Node<R>, path: string, methods: ReadonlySet<string> | null, route: R): void {
  const segments = path.slice(1).split('/')
  const paramNames: string[] = []
  let node = root
  let list: 'exact' | 'rest' = 'exact'
  for (const segment of segments) {
    if (segment === '*') {
      list = 'rest'
      break
    }
    if (segment.startsWith(':')) {
      paramNames.push(segment.slice(1))
      node = node.param ??= createNode<R>()
      continue
    }
    const next = node.statics.get(segment) ?? createNode<R>()
    node.statics.set(segment, next)
    node = next
  }
  const candidates = node[list]
  candidates.push({ route, isLiteral: path.includes(';'), methods, paramNames })
  candidates.sort((a, b) => Number(a.methods === null) - Number(b.methods === null))
}

/** from: where the next segment begins. values: the parameters so far, left as they were when nothing is found.
 *  allowed: collects the methods of matching paths, where somebody wants to know. */
function walk<R>(
  node: Node<R>,
  path: string,
  from: number,
  method: string,
  values: string[],
  allowed: Set<string> | null,
): Candidate<R> | null {
  // A path '/x' has ended when `from` is past its end; '/x/' still has an empty segment to come.
  if (from > path.length) return pick(node.exact, method, allowed) ?? pick(node.rest, method, allowed)
  const slash = path.indexOf('/', from)
  const end = slash === -1 ? path.length : slash
  const segment = path.slice(from, end)

  // An id is new to a Map each time, which makes it dear to look up.
  const child = node.statics.size === 0 ? undefined : node.statics.get(segment)
  const found = child === undefined ? null : walk(child, path, end + 1, method, values, allowed)
  if (found !== null) return found

  if (node.param !== null && segment !== '') {
    values.push(segment)
    const below = walk(node.param, path, end + 1, method, values, allowed)
    if (below !== null) return below
    values.pop()
  }
  return pick(node.rest, method, allowed)
}

function pick<R>(
  candidates: readonly Candidate<R>[],
  method: string,
  allowed: Set<string> | null,
): Candidate<R> | null {
  for (const candidate of candidates) {
    if (candidate.methods === null || candidate.methods.has(method)) return candidate
    if (allowed !== null) for (const other of candidate.methods) allowed.add(other)
  }
  return null
}

function paramsOf<R>({ paramNames }: Candidate<R>, values: readonly string[]): ReadonlyMap<string, string> | null {
  if (paramNames.length === 0) return null
  return new Map(paramNames.map((name, i) => [name, values[i] as string]))
}
