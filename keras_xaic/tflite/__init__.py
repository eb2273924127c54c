"""The bytes: conversion, low-bit storage, slimming, download container, C source and the bundle."""
