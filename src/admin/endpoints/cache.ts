// Changes to what the cache holds.

import { z } from 'zod'
import { later } from '../../core/decode.ts'
import { decoded, json } from './endpoint.ts'
import type { Endpoint } from './endpoint.ts'
import { url } from './url.ts'

const MAX_URLS = 1000
const MAX_LOGGED_URLS = 10

const purgeRequest = z.strictObject({
  urls: z
    .array(url(), { error: 'expected a list of URLs' })
    .min(1, { error: 'expected at least one URL' })
    .max(MAX_URLS, { error: `expected at most ${MAX_URLS} URLs` }),
  tags: later(),
  prefix: later(),
  pattern: later(),
  all: later(),
  soft: later(),
})

export const CACHE: readonly Endpoint[] = [
  {
    method: 'POST',
    path: '/api/cache/purge',
    summary: 'forget what is stored for {urls: [...]}, every variant of each',
    run: (control, body) =>
      decoded(purgeRequest, body, ({ urls }) => {
        const result = control.purge(urls)
        return {
          ...json(result),
          change: { urls: urls.length, first: urls.slice(0, MAX_LOGGED_URLS).map(forLog), ...result },
        }
      }),
  },
]

/** A query may hold secrets, whose names this folder does not know. */
const forLog = (text: string): string => text.replace(/[?#].*$/s, '?***')
