// Where a route sends requests beside its upstream.

import type { Finding } from './issues.ts'
import { isMapping, valueAt } from './path.ts'
import { type RawRoute, complaint } from './raw.ts'

const upstreamOf = (raw: unknown, { fields }: RawRoute): unknown =>
  fields['upstream'] ?? valueAt(raw, ['defaults', 'upstream'])

export function checkCanary(raw: unknown, route: RawRoute): Finding[] {
  const { path, fields } = route
  const { canary } = fields
  if (!isMapping(canary)) return []
  if (typeof canary['upstream'] === 'string' && canary['upstream'] === upstreamOf(raw, route)) {
    return [complaint([...path, 'canary', 'upstream'], 'is the upstream of the route', 'name another')]
  }
  const hasShare = canary['percent'] !== undefined && Number(canary['percent']) !== 0
  if (hasShare || canary['header'] !== undefined) return []
  return [complaint([...path, 'canary'], 'gets no request', 'add percent or header, or remove it')]
}

/** Who answers a request need not get a copy of it. */
export function checkMirror(raw: unknown, route: RawRoute): Finding[] {
  const { path, fields } = route
  const upstream = valueAt(fields, ['mirror', 'upstream'])
  const asked = [upstreamOf(raw, route), valueAt(fields, ['canary', 'upstream'])]
  if (typeof upstream !== 'string' || !asked.includes(upstream)) return []
  return [complaint([...path, 'mirror', 'upstream'], 'gets the requests of the route already', 'name another')]
}
