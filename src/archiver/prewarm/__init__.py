"""Archives to build before clients request them: rules, and the pushes that hosts announce."""
