import { expect, it } from 'vitest'
import { compileSubjectTag } from '../../src/limit/subject-tag.ts'

const tag = compileSubjectTag('secret')

it('is the same in every instance that has the secret', () => {
  expect(tag('ip', '192.0.2.1')).toBe(compileSubjectTag('secret')('ip', '192.0.2.1'))
  expect(tag('ip', '192.0.2.1')).toMatch(/^[\w-]{22}$/)
})

it('differs by subject, scope and secret', () => {
  const tags = [tag('ip', 'a'), tag('ip', 'b'), tag('user', 'a'), compileSubjectTag('other')('ip', 'a')]
  expect(new Set(tags).size).toBe(4)
})
