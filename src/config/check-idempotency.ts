// What a route says of Idempotency-Keys that contradicts the rest of it.

import { parseSize } from '../core/decode.ts'
import { KEYED_BY_DEFAULT } from '../idempotency/options.ts'
import type { Finding } from './issues.ts'
import { isMapping, valueAt } from './path.ts'
import { type RawRoute, complaint, listAt, methodsOf, upperCase } from './raw.ts'

/** All findings about the keys of one route. */
export function checkIdempotency(route: RawRoute): Finding[] {
  const { path, fields } = route
  const options = fields['idempotency']
  if (!isMapping(options) && String(options) !== 'true') return []
  return [...checkMethods(route), ...checkBody({ path, fields })]
}

function checkMethods(route: RawRoute): Finding[] {
  const { path, fields } = route
  const own = methodsOf(route)
  if (own === null || own.length === 0) return []
  const listed = upperCase(valueAt(fields, ['idempotency', 'methods']))
  if ((listed ?? KEYED_BY_DEFAULT).every((method) => !own.includes(method))) {
    const got = `has no effect: no ${(listed ?? KEYED_BY_DEFAULT).join(' or ')} comes here`
    const cure = listed === null ? 'list others in its `methods`, or remove it' : 'add one to the methods of the route'
    return [{ path: [...path, 'idempotency'], at: 'key', expected: null, got, cure }]
  }
  return listAt(fields, ['idempotency', 'methods']).flatMap((method, i) =>
    typeof method === 'string' && !own.includes(method.toUpperCase())
      ? [
          complaint(
            [...path, 'idempotency', 'methods', i],
            `${method.toUpperCase()} never comes here`,
            'add it to the methods of the route',
          ),
        ]
      : [],
  )
}

/** The route refuses it before. */
function checkBody({ path, fields }: RawRoute): Finding[] {
  const sizeAt = (value: unknown): number | null => (typeof value === 'string' ? parseSize(value) : null)
  const own = sizeAt(valueAt(fields, ['idempotency', 'maxBody']))
  const most = sizeAt(fields['maxBody'] ?? '10MiB')
  if (own === null || most === null || own <= most) return []
  const cure = 'raise that one, or lower this one'
  return [
    {
      path: [...path, 'idempotency', 'maxBody'],
      at: 'value',
      expected: "no more than the route's maxBody",
      got: null,
      cure,
    },
  ]
}
