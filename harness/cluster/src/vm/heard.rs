//! Announcements that agents heard.
