// A URL that stands in the body of an admin request: absolute, or a path that stands for any host.

import { z } from 'zod'

const MAX_URL_CHARS = 8192

/** Only the form is looked at; the gateway normalises and judges the target as it does a client's. */
export const url = () =>
  z
    .string({ error: 'expected a URL as text' })
    .max(MAX_URL_CHARS, { error: `expected at most ${MAX_URL_CHARS} characters` })
    .regex(/^(?:https?:\/\/[^/?#\s]+)?\//i, { error: 'expected "/path" or "http://host/path"' })
