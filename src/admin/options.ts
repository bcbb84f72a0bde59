// What YAML may say of the admin port.

import { z } from 'zod'
import { text } from '../core/decode.ts'
import { address } from '../server/options.ts'

export const MIN_TOKEN_BYTES = 32

export const adminOptions = z.strictObject({
  listen: address().prefault('127.0.0.1:9090').describe('admin address; keep it on loopback, or set a token'),
  token: text(`a secret of at least ${MIN_TOKEN_BYTES} bytes, or "" for none`, (value) =>
    value === '' || Buffer.byteLength(value) >= MIN_TOKEN_BYTES ? null : 'make one: openssl rand -hex 32',
  )
    .prefault('')
    .describe('bearer token of the admin API; required where it listens beyond loopback'),
})

export type AdminOptions = z.output<typeof adminOptions>
