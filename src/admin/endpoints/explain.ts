// What would become of a request that is not sent: route, limits, cache.

import { z } from 'zod'
import { isFieldValue, isToken } from '../../http/headers.ts'
import { decoded, json } from './endpoint.ts'
import type { Endpoint } from './endpoint.ts'
import { url } from './url.ts'

const fieldValue = z.string().refine(isFieldValue, { error: 'expected a header value without control characters' })

const explainRequest = z.strictObject({
  method: z
    .string({ error: 'expected a method such as "GET"' })
    .refine(isToken, { error: 'expected a method such as "GET"' }),
  url: url(),
  headers: z
    .record(
      z.string().refine(isToken),
      z.union([fieldValue.transform((value) => [value]), z.array(fieldValue)], {
        error: 'expected a header value, or a list of them',
      }),
      { error: (issue) => (issue.code === 'invalid_key' ? 'expected a header name' : 'expected {name: value}') },
    )
    .prefault({}),
  body: z.string({ error: 'expected the body as a text' }).optional(),
})

export const EXPLAIN: readonly Endpoint[] = [
  {
    method: 'POST',
    path: '/api/explain',
    summary: 'what would become of {method, url, headers?, body?}; nothing is sent, counted or charged',
    run: (control, body, client) =>
      decoded(explainRequest, body, async ({ method, url, headers, body: text }) => {
        const list = Object.entries(headers).flatMap(([name, values]) => values.flatMap((value) => [name, value]))
        const request = { method, url, headers: list, client, ...(text !== undefined && { body: text }) }
        return json(await control.explain(request))
      }),
  },
]
