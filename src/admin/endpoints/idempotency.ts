// Idempotency-Keys, freed by hand.

import { z } from 'zod'
import { decoded, json } from './endpoint.ts'
import type { Endpoint } from './endpoint.ts'

const MAX_ROUTE_CHARS = 8192
const MAX_KEY_CHARS = 1024

const text = (what: string, most: number) =>
  z.string({ error: `expected ${what}` }).max(most, { error: `expected at most ${most} characters` })

const freeRequest = z.strictObject({
  route: text('the name of a route, as the log has it', MAX_ROUTE_CHARS),
  key: text('an Idempotency-Key', MAX_KEY_CHARS),
})

export const IDEMPOTENCY: readonly Endpoint[] = [
  {
    method: 'POST',
    path: '/api/idempotency/free',
    summary:
      'let requests with {key} on {route} be sent again of which nobody knows what became of them, whoever has sent them, on all instances',
    run: (control, body) =>
      decoded(freeRequest, body, async ({ route, key }) => {
        const freed = await control.freeKey(route, key)
        return { ...json(freed), change: freed }
      }),
  },
]
