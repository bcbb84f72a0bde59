// Takes the configuration file as it is now.

import { z } from 'zod'
import { json, problem } from './endpoint.ts'
import type { Endpoint } from './endpoint.ts'

const reloadRequest = z.strictObject({})

export const RELOAD: readonly Endpoint[] = [
  {
    method: 'POST',
    path: '/api/reload',
    summary: 'read the configuration again; 422 with the errors where it is invalid, and the old one stays',
    async run(control, body) {
      if (!reloadRequest.safeParse(body).success) return problem(400, 'Bad Request', 'body: expected {} or nothing')
      const result = await control.reload()
      return { ...json(result, result.ok ? 200 : 422), change: result }
    },
  },
]
