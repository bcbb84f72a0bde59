// What a route says of bodies that contradicts the rest of it: fields of a key that are taken out of it again, and
// conditions on bodies that nobody reads.

import { parseField } from '../http/json.ts'
import type { Finding } from './issues.ts'
import { isMapping, valueAt } from './path.ts'
import type { Path } from './path.ts'
import { type RawRoute, complaint, listAt } from './raw.ts'

/** All findings about the bodies of one route's requests and answers. */
export const checkBodies = (route: RawRoute): Finding[] => [
  ...checkBodyKey(route),
  ...checkGraphql(route),
  ...checkConditions(route),
]

/** Whether a route's bodies are requests of GraphQL. */
export const isGraphql = ({ fields }: RawRoute): boolean => {
  const body = valueAt(fields, ['cache', 'key', 'body'])
  return typeof body === 'string' && body.toLowerCase() === 'graphql'
}

/** Options that are settled where bodies are requests of GraphQL. */
function checkGraphql(route: RawRoute): Finding[] {
  if (!isGraphql(route)) return []
  const settled = [
    [['key', 'query'], 'beside `body: graphql` all parameters count'],
    [['storeUnfinished'], 'of GraphQL, answers with errors are never stored'],
  ] as const
  return settled.flatMap(([at, why]) =>
    valueAt(route.fields, ['cache', ...at]) === undefined
      ? []
      : [
          {
            path: [...route.path, 'cache', ...at],
            at: 'key' as const,
            expected: null,
            got: `has no effect: ${why}`,
            cure: 'remove it',
          },
        ],
  )
}

/** A field that stands in `key.body`, and where. */
interface Named {
  readonly at: Path
  readonly pointer: readonly string[]
}

function checkBodyKey({ path, fields }: RawRoute): Finding[] {
  const at = [...path, 'cache', 'key', 'body']
  const body = valueAt(fields, ['cache', 'key', 'body'])
  if (!isMapping(body)) return []
  if (Object.keys(body).length === 0) return [complaint(at, 'nothing that counts', 'write canonical for all fields')]

  const listed = (key: string): Named[] => named(listAt(body, [key]), (i) => [...at, key, i])
  const keyed = (key: string): Named[] => {
    const byField = body[key]
    if (!isMapping(byField)) return []
    const names = Object.keys(byField)
    return named(names, (i) => [...at, key, names[i] as string])
  }
  const [only, ignored, defaults, normal] = [listed('only'), listed('ignore'), keyed('defaults'), keyed('normalize')]
  const findings = [only, ignored, defaults, normal].flatMap(repeated)

  for (const { at: place, pointer } of ignored) {
    if (pointer.length === 1 && pointer[0] === 'stream') {
      const cure = 'remove it: who asks for a stream gets another answer than who does not'
      findings.push(complaint(place, 'a field that asks for another answer', cure))
    }
    const kept = [...only, ...defaults, ...normal].find((other) => isWithin(other.pointer, pointer))
    if (kept === undefined) continue
    const cure = `it takes out what ${String(kept.at.find((step) => USES.has(step)))} names; remove one`
    findings.push(complaint(place, 'a field that is to count', cure))
  }
  if (Object.hasOwn(body, 'only')) {
    for (const { at: place, pointer } of [...defaults, ...normal]) {
      if (only.some((one) => isWithin(pointer, one.pointer))) continue
      findings.push({
        path: place,
        at: 'key',
        expected: null,
        got: 'a field that `only` leaves out',
        cure: 'list it there',
      })
    }
  }
  return findings
}

const USES: ReadonlySet<string | number> = new Set(['only', 'defaults', 'normalize'])

function named(texts: readonly unknown[], pathOf: (index: number) => Path): Named[] {
  return texts.flatMap((text, i) => {
    const pointer = typeof text === 'string' ? parseField(text) : null
    return pointer === null ? [] : [{ at: pathOf(i), pointer }]
  })
}

/** True for what a pointer points at, and all below it. */
const isWithin = (pointer: readonly string[], other: readonly string[]): boolean =>
  other.every((token, i) => pointer[i] === token)

/** `prompt` and `/prompt` are one field, and two defaults for it would be one too many. */
function repeated(fields: readonly Named[]): Finding[] {
  const seen = new Set<string>()
  return fields.flatMap(({ at, pointer }) => {
    const text = JSON.stringify(pointer)
    if (!seen.has(text)) return seen.add(text) && []
    return [{ path: at, at: 'key' as const, expected: null, got: 'the same field twice', cure: 'remove one' }]
  })
}

function checkConditions({ path, fields }: RawRoute): Finding[] {
  if (valueAt(fields, ['cache', 'bypassIf']) === undefined) return []
  const body = valueAt(fields, ['cache', 'key', 'body'])
  if (body !== undefined && (typeof body !== 'string' || body.toLowerCase() !== 'raw')) return []
  const got = 'has no effect: no body is read as JSON here'
  const cure = 'add `key: {body: canonical}`, or the fields that count'
  return [{ path: [...path, 'cache', 'bypassIf'], at: 'key', expected: null, got, cure }]
}
