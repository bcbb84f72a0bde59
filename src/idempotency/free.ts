// A key is freed by hand: its request can be sent again. Only one of which nobody knows what became of it, after somebody has
// looked: what is under way or was carried out stays done once. Whoever looks knows the route and the key, and not by which
// credentials it came, so it is freed for all who have sent it.
//
// Where Redis is shared, it alone decides: each instance asks it about what it does not know itself.

import type { KeyFreed } from '../core/control.ts'
import type { Idempotency } from './idempotency.ts'
import { parseKey } from './key.ts'

/** route: its name. field: the key, as requests send it. Rejects with a GatewayError where it is none. */
export async function freeKey(
  { table, shared, names }: Pick<Idempotency, 'table' | 'shared' | 'names'>,
  route: string,
  field: string,
): Promise<KeyFreed> {
  const name = names.nameOf(route, parseKey(field))
  const result = (freed: number, isShared: boolean | null): KeyFreed => ({
    route,
    key_digest: name,
    freed,
    shared: isShared,
  })
  let everywhere: string[] = []
  try {
    everywhere = (await shared?.free(name)) ?? []
  } catch {
    return result(0, false)
  }
  const here = await table.free(name)
  return result(new Set([...everywhere, ...here]).size, shared === null ? null : true)
}
