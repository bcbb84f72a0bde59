// Under which name a subject is counted where others may read it: no address, user or key of a client is written to Redis.
// HMAC-SHA-256 rather than a bare digest, because all IPv4 addresses can be tried in a minute.

import { createHmac } from 'node:crypto'

/** 132 bits. */
const TAG_CHARACTERS = 22

/** scope: what the subject belongs to, without line feeds; subjects of different scopes have nothing in common. */
export type SubjectTag = (scope: string, subject: string) => string

/** secret: of all instances. Tags are 22 characters of base64url. */
export const compileSubjectTag =
  (secret: string): SubjectTag =>
  (scope, subject) =>
    createHmac('sha256', secret).update(`${scope}\n${subject}`).digest('base64url').slice(0, TAG_CHARACTERS)
