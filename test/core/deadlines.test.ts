// Deadlines of 25 ms under sweeps of 5 ms, with the clock in the test's hands.

import { describe, expect, it } from 'vitest'
import { Deadlines } from '../../src/core/deadlines.ts'

function watched() {
  const deadlines = new Deadlines(25)
  const expired: string[] = []
  const add = (nowMs: number, name: string) => deadlines.add(nowMs, () => expired.push(name))
  /** A sweep that was due at expectedMs, begins at nowMs and ends one poll later. */
  const sweep = (nowMs: number, expectedMs = nowMs, judgedMs = nowMs): number => {
    deadlines.mark(nowMs, expectedMs)
    return deadlines.judge(judgedMs)
  }
  return { deadlines, expired, add, sweep }
}

describe('Deadlines', () => {
  it('expires what is due, and nothing before', () => {
    const { add, sweep, expired } = watched()
    add(0, 'a')
    add(3, 'b')
    expect(sweep(24)).toBe(0)
    expect(sweep(25)).toBe(1)
    expect(sweep(28)).toBe(1)
    expect(expired).toEqual(['a', 'b'])
  })

  it('judges by the time of the mark, so that what came due during the poll has its own poll', () => {
    const { add, sweep, expired } = watched()
    add(0, 'a')
    expect(sweep(24, 24, 30)).toBe(0)
    expect(expired).toEqual([])
  })

  it('lets a reply count that the last poll brought', () => {
    const { add, deadlines, expired } = watched()
    const wait = add(0, 'a')
    deadlines.mark(30, 30)
    expect(deadlines.delete(wait)).toBe(true)
    expect(deadlines.judge(30)).toBe(0)
    expect(expired).toEqual([])
  })

  it('says of a reply after the deadline that it is late', () => {
    const { add, sweep, deadlines } = watched()
    const wait = add(0, 'a')
    sweep(30)
    expect(deadlines.delete(wait)).toBe(false)
    expect(deadlines.size).toBe(0)
  })

  it('does not count a sweep that was itself late: the clock starts again', () => {
    const { add, sweep, expired } = watched()
    add(0, 'a')
    expect(sweep(200, 5)).toBe(0)
    expect(sweep(224)).toBe(0)
    expect(sweep(225)).toBe(1)
    expect(expired).toEqual(['a'])
  })

  it('counts a sweep that was late by no more than 12 ms', () => {
    const { add, sweep } = watched()
    add(0, 'a')
    expect(sweep(37, 25)).toBe(1)
  })

  it('does not judge after a stall between mark and judgement', () => {
    const { add, sweep } = watched()
    add(0, 'a')
    expect(sweep(25, 25, 225)).toBe(0)
    expect(sweep(250)).toBe(1)
  })

  it('starts the clock of a wait again only once, so that an always late loop ends it too', () => {
    const { add, sweep, expired } = watched()
    add(0, 'a')
    expect(sweep(40, 5)).toBe(0)
    add(45, 'b')
    expect(sweep(80, 45)).toBe(1)
    expect(expired).toEqual(['a'])
    expect(sweep(120, 85)).toBe(1)
  })
})
