// What YAML may say of the log.

import { z } from 'zod'
import { duration, text, word } from '../core/decode.ts'

export const logOptions = z.strictObject({
  level: word(['trace', 'debug', 'info', 'warn', 'warning', 'error', 'fatal', 'silent'])
    .transform((level) => (level === 'warning' ? 'warn' : level))
    .prefault('info')
    .describe('least level that is written; one line per request is info, a slow one warn'),
  slow: duration({ minMs: 1 }).prefault('1s').describe('a request that takes longer is logged as slow'),
  userId: word(['hash', 'plain'])
    .prefault('hash')
    .describe('hash: user_id tells users apart and does not name them; plain: it is the name'),
  redactQuery: z
    .array(text('a query parameter name'))
    .prefault(['token', 'key', 'api_key', 'access_token', 'secret', 'password', 'sig', 'signature', 'code'])
    .describe('query parameters whose values never reach the log'),
})

export type LogOptions = z.output<typeof logOptions>
